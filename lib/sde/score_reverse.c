/* The reverse equation and the probability flow, SDE eq. 6 and 13. */
#include <math.h>

#include "sde/score.h"

void dm_sde_reverse_options_init(dm_sde_reverse_options *options, uint32_t struct_size) {
    const dm_sde_reverse_options defaults = {0};
    dmi_options_init(options, struct_size, &defaults, sizeof defaults);
}

static int32_t reverse_drift(double t, int64_t n, const double *x, double *out, void *user) {
    const dm_sde *sde = user;
    const dmi_score_process *process = &sde->score;
    const int32_t code = process->score(t, n, x, out, process->user);
    if (code != 0) return code;
    const double rate = dmi_score_drift_rate(process, t);
    const double weight = process->score_weight * dmi_score_noise_variance(process, t);
    for (int64_t i = 0; i < sde->dim * n; i++) out[i] = rate * x[i] - weight * out[i];
    return 0;
}

dm_status dmi_score_create_reverse(dm_context *context, const dm_sde *forward, dm_sde_fn score, void *user,
                                   void (*destroy)(void *user), const dm_sde_reverse_options *options,
                                   dm_sde **out) {
    dm_status status = DM_OK;
    dm_sde_reverse_options read = {0};
    if (out == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    DM_TRY(dmi_score_check(forward, "forward"));
    if (forward->score.score != NULL)
        return dmi_fail(DM_ERROR_UNSUPPORTED, "forward: expected a forward process, got a reverse one");
    if (score == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "score: expected a function, got NULL");
    if (options != NULL) DM_TRY(dmi_options_read(&read, sizeof read, options, "dm_sde_reverse_options"));
    const int flow = read.probability_flow != 0;
    DM_TRY(dmi_sde_new(context, forward->dim, flow ? DM_SDE_NOISE_NONE : DM_SDE_NOISE_DIAGONAL_ADDITIVE,
                       flow ? 0 : forward->dim, NULL, out));
    dm_sde *sde = *out;
    sde->kind = DMI_SDE_SCORE;
    sde->score = forward->score;
    sde->score.score = score;
    sde->score.score_weight = flow ? 0.5 : 1;
    sde->score.user = user;
    sde->score.destroy = destroy;
    sde->parallel = read.parallel_callbacks != 0;
    sde->drift = reverse_drift;
    sde->diffusion = forward->diffusion;
done:
    return status;
}

dm_status dm_sde_create_reverse(dm_context *context, const dm_sde *forward, dm_sde_fn score, void *score_user,
                                const dm_sde_reverse_options *options, dm_sde **out) {
    return dmi_score_create_reverse(context, forward, score, score_user, NULL, options, out);
}
