/* Losses of a batch: a row of per-sample losses in doubles, their weighted mean, and the gradient. Samples
 * are independent and each is summed in the order of its numbers, so the bits are the same for any number of
 * threads. */
#ifndef DMI_LOSSES_H
#define DMI_LOSSES_H

#include "diffusion/elements.h"
#include "diffusion/loss.h"
#include "diffusion/process.h"

/* cost(d) and *slope, its derivative. */
double dmi_loss_cost(dm_loss_type type, double delta, double d, double *slope);
dm_status dmi_loss_type_check(dm_loss_type type, double delta);

/* Options over defaults, checked; the zeros of gamma and bound_weight replaced. */
dm_status dmi_loss_options_read(const dm_loss_options *options, dm_loss_options *out);
/* HYBRID wants a learned variance: INVALID_ARGUMENT. */
dm_status dmi_loss_options_check_variance(const dm_loss_options *options, const dm_scheduler *scheduler);
double dmi_loss_weight_at(const dm_scheduler *scheduler, const dm_loss_options *options, int32_t t);

/* What dm_loss_cross_entropy() does after its checks. */
typedef struct dmi_entropy_batch {
    dmi_numbers logits, weights, grad;
    const dm_tensor *labels;      /* i32 or i64 [batch], contiguous */
    double smoothing, grad_scale; /* grad_scale: factor of grad besides 1 / batch */
    int64_t batch, classes;
    double *losses; /* [batch] */
} dmi_entropy_batch;
void dmi_entropy_run(const dmi_entropy_batch *batch, dm_context *context);

/* p(x_{t-1} | x_t) at one timestep. */
typedef struct dmi_reverse {
    int32_t t;
    dm_variance_type variance_type;
    int mean_is_output;
    dmi_mix x0;  /* of x_t and the output */
    double clip; /* x0 is clamped to +-clip; 0: not */
    dmi_posterior posterior;
    double min_log, max_log; /* log beta_tilde (clipped) and log beta: the ends of learned ranges */
    double log_variance;     /* when it is fixed */
} dmi_reverse;

dmi_reverse dmi_reverse_at(const dm_scheduler *scheduler, int32_t t, double clip);
/* One number of it; v: that of the second half, 0 without. */
typedef struct dmi_moments {
    double x0, mean, log_variance;
    int is_clamped;
} dmi_moments;
dmi_moments dmi_reverse_moments(const dmi_reverse *reverse, double output, double v, double x_t);
/* The bound's term of one number, in nats; d[2]: with respect to output and v, or NULL. */
double dmi_reverse_term(const dmi_reverse *reverse, double output, double v, double x0, double x_t,
                        double *x0_pred, double *d);

/* log beta_tilde, at t = 0 that of t = 1. */
double dmi_posterior_log_variance(const dm_scheduler *scheduler, int32_t t);

/* What dm_scheduler_loss() does after its checks. losses [B]: L; terms: [B][2], or NULL. */
typedef struct dmi_loss_batch {
    const dm_scheduler *scheduler;
    dm_loss_options options;
    dmi_numbers output, x0, noise, weights, grad;
    double grad_scale; /* factor of grad besides 1/B */
    const dm_tensor *t;
    int64_t batch, numel; /* numel: of a sample of x0 */
    int32_t halves;       /* 2 with a learned variance */
    double *losses, *terms;
} dmi_loss_batch;
void dmi_loss_run(const dmi_loss_batch *batch, dm_context *context);
/* UNSUPPORTED where a bound has no x0. */
dm_status dmi_loss_check_signal(const dm_scheduler *scheduler, const dm_loss_options *options,
                                const dm_tensor *t);

#endif
