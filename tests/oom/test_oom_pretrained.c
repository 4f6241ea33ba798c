/* Networks from the files of other programs, and back: each allocation fails in turn. A save that fails
 * leaves no half-written file behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "oom/oom_support.h"
#include "unit/noise_nets_support.h"
#include "unit/unet2d_support.h"

static char directory[] = "oom_pretrained_XXXXXX";
static char sharded[64], state_file[64], checkpoint[64];

static void must(dm_status status) {
    if (status != DM_OK) fail_msg("%s", dm_last_error());
}

/* The files, made while memory lasts: a directory in one file and one in several, weights under
 * guided-diffusion's names, and a file of the library's own in 16 bits. */
static int make_files(void **state) {
    const dm_unet2d_options options = tiny_unet2d(1);
    const dm_adm_options adm = tiny_adm(1);
    dm_pretrained_save_options how;
    const char *names[400];
    const dm_tensor *tensors[400];
    dm_net *net, *other;
    (void)state;
    assert_non_null(mkdtemp(directory));
    (void)snprintf(sharded, sizeof sharded, "%s/sharded", directory);
    (void)snprintf(state_file, sizeof state_file, "%s/state.safetensors", directory);
    (void)snprintf(checkpoint, sizeof checkpoint, "%s/own.safetensors", directory);
    must(dm_unet2d_create(NULL, &options, &net));
    must(dm_unet_save_pretrained(net, directory, NULL));
    dm_pretrained_save_options_init(&how, sizeof how);
    how.max_shard_bytes = 2000;
    how.dtype = DM_DTYPE_BF16;
    must(dm_unet_save_pretrained(net, sharded, &how));
    must(dm_net_save_as(net, checkpoint, DM_DTYPE_F16));
    must(dm_adm_create(NULL, &adm, &other));
    const int32_t count = dm_net_num_params(other);
    assert_true(count <= 400);
    for (int32_t i = 0; i < count; i++) {
        names[i] = dm_net_param_name(other, i);
        tensors[i] = dm_net_param(other, i);
    }
    must(dm_safetensors_save(NULL, state_file, count, names, tensors, 0, NULL, NULL));
    dm_net_destroy(other);
    dm_net_destroy(net);
    return 0;
}

static int remove_files(void **state) {
    char command[128];
    (void)state;
    (void)snprintf(command, sizeof command, "rm -rf '%s'", directory);
    return system(command);
}

static dm_status load(dm_context *context, const char *path, const dm_pretrained_options *how) {
    dm_net *net = NULL;
    const dm_status status = dm_unet_load_pretrained(context, path, how, &net);
    if (status != DM_OK) assert_null(net);
    dm_net_destroy(net);
    return status;
}

static dm_status walk_directory(dm_context *context) {
    return load(context, directory, NULL);
}

static dm_status walk_shards(dm_context *context) {
    return load(context, sharded, NULL);
}

static dm_status walk_own_file(dm_context *context) {
    return load(context, checkpoint, NULL);
}

static dm_status walk_state(dm_context *context) {
    const dm_adm_options adm = tiny_adm(1);
    dm_pretrained_options how;
    dm_pretrained_options_init(&how, sizeof how);
    how.adm = &adm;
    return load(context, state_file, &how);
}

static dm_status walk_weights(dm_context *context) {
    const dm_unet2d_options options = tiny_unet2d(1);
    dm_net *net = NULL;
    dm_status status = dm_unet2d_create(context, &options, &net);
    if (!status) status = dm_net_load_weights(net, checkpoint);
    dm_net_destroy(net);
    return status;
}

static dm_status walk_save(dm_context *context) {
    dm_pretrained_save_options how;
    char target[64];
    dm_net *net = NULL;
    (void)snprintf(target, sizeof target, "%s/saved", directory);
    dm_pretrained_save_options_init(&how, sizeof how);
    how.max_shard_bytes = 4000;
    how.dtype = DM_DTYPE_F16;
    dm_status status = dm_unet_load_pretrained(context, directory, NULL, &net);
    if (!status) status = dm_unet_save_pretrained(net, target, &how);
    dm_net_destroy(net);
    return status;
}

static void test_loads(void **state) {
    (void)state;
    sweep(walk_directory, 20);
    sweep(walk_shards, 20);
    sweep(walk_own_file, 20);
    sweep(walk_state, 20);
    sweep(walk_weights, 20);
}

/* What was saved last, when memory lasted, is whole. */
static void test_saves(void **state) {
    char target[64];
    dm_net *net;
    (void)state;
    sweep(walk_save, 20);
    (void)snprintf(target, sizeof target, "%s/saved", directory);
    must(dm_unet_load_pretrained(NULL, target, NULL, &net));
    dm_net_destroy(net);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_loads), cmocka_unit_test(test_saves)};
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
