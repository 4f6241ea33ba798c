/* The reverse equation and the probability flow, SDE eq. 6 and 13. */
#include <string.h>

#include "sde/score.h"

void dm_sde_reverse_options_init(dm_sde_reverse_options *options, uint32_t struct_size) {
    const dm_sde_reverse_options defaults = {0};
    dmi_options_init(options, struct_size, &defaults, sizeof defaults);
}

dm_status dmi_score_evaluate(const dmi_score_process *process, double t, int64_t n, const double *x,
                             double *out) {
    const int32_t code = process->score(t, n, x, out, process->user);
    if (code == 0) return DM_OK;
    if (process->destroy != NULL) return code;
    return dmi_fail(DM_ERROR_CALLBACK, "score: expected 0 from the callback at t = %g, got %d", t, (int)code);
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

/* ---- denoising score matching ---- */

static dm_status check_loss(const dm_sde *sde, const dm_tensor *x0, const dm_tensor *t,
                            const dm_tensor *noise, const dm_tensor *loss) {
    dm_status status = DM_OK;
    DM_TRY(dmi_score_check(sde, "reverse"));
    if (sde->score.score == NULL)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "reverse: expected a process with a score");
    const int64_t rows[2] = {DMI_ANY, sde->dim};
    DM_TRY(dmi_tensor_check_contiguous(x0, "x0", DM_DTYPE_F64, 2, rows));
    DM_TRY(dmi_tensor_check_contiguous(t, "t", DM_DTYPE_F64, 1, x0->shape));
    DM_TRY(dmi_tensor_check_contiguous(noise, "noise", DM_DTYPE_F64, 2, x0->shape));
    DM_TRY(dmi_tensor_check_contiguous(loss, "loss", DM_DTYPE_F64, 1, x0->shape));
    for (int64_t p = 0; p < t->shape[0]; p++) {
        const double at = ((const double *)t->data)[p], end = dmi_score_end_time(&sde->score);
        if (!(at > 0 && at <= end))
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "t: expected times above 0, up to %g, got %g", end,
                            at);
    }
done:
    return status;
}

/* |s score + z|^2 / 2, rows one by one for their times differ. */
static dm_status row_loss(const dmi_score_process *process, int64_t d, double t, const double *x0,
                          const double *z, double *memory, double *loss) {
    const double m = dmi_score_mean_scale(process, t), s = dmi_score_std(process, t);
    double *x = memory, *score = memory + d, sum = 0;
    for (int64_t i = 0; i < d; i++) x[i] = m * x0[i] + s * z[i];
    const dm_status status = dmi_score_evaluate(process, t, 1, x, score);
    if (status != DM_OK) return status;
    for (int64_t i = 0; i < d; i++) sum += (s * score[i] + z[i]) * (s * score[i] + z[i]);
    *loss = 0.5 * sum;
    return DM_OK;
}

dm_status dm_sde_score_loss(const dm_sde *reverse, const dm_tensor *x0, const dm_tensor *t,
                            const dm_tensor *noise, int32_t likelihood_weighting, dm_tensor *loss) {
    dm_status status = DM_OK;
    double *memory = NULL; /* x [d], score [d], losses [P] */
    DM_TRY(check_loss(reverse, x0, t, noise, loss));
    const int64_t d = reverse->dim, n = x0->shape[0];
    const double *from = x0->data, *times = t->data, *z = noise->data;
    memory = dmi_alloc_array(reverse->context, (size_t)(2 * d + n), sizeof *memory);
    if (memory == NULL) return DM_ERROR_OUT_OF_MEMORY;
    double *losses = memory + 2 * d;
    for (int64_t p = 0; p < n; p++) {
        const double s = dmi_score_std(&reverse->score, times[p]);
        const double weight = dmi_score_noise_variance(&reverse->score, times[p]) / (s * s);
        DM_TRY(row_loss(&reverse->score, d, times[p], from + p * d, z + p * d, memory, &losses[p]));
        if (likelihood_weighting != 0) losses[p] *= weight;
    }
    memcpy(loss->data, losses, (size_t)n * sizeof *losses);
done:
    if (memory != NULL) dmi_free(reverse->context, memory);
    return status;
}
