/* The smallest program of someone else's: compiled outside the tree against what was installed, as C99 and as
 * C++17. */
#include <diffusion.h>
#include <stdio.h>
#include <string.h>

int main(void) {
    const int64_t shape[4] = {2, 1, 28, 28};
    dm_tensor *x = NULL, *none = NULL;
    dm_scheduler *scheduler = NULL;
    int failed = 1;

    printf("%s\n", dm_version_string());
    if (dm_version() != DM_VERSION) goto done;
    if (dm_tensor_create(NULL, DM_DTYPE_F32, 4, shape, &x) != DM_OK) goto done;
    if (dm_tensor_numel(x) != 2 * 28 * 28) goto done;
    if (dm_scheduler_create(NULL, NULL, &scheduler) != DM_OK) goto done;
    if (dm_scheduler_num_train_timesteps(scheduler) != 1000) goto done;
    if (dm_tensor_create(NULL, DM_DTYPE_F32, -1, shape, &none) == DM_OK || none != NULL) goto done;
    failed = strlen(dm_last_error()) == 0;
done:
    if (failed) printf("failed: %s\n", dm_last_error());
    dm_scheduler_destroy(scheduler);
    dm_tensor_destroy(x);
    return failed;
}
