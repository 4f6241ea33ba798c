/* The network's distribution p(x_{t-1} | x_t) and its terms of the variational bound: Ho et al. 2020, section
 * 2 and 3; Nichol and Dhariwal 2021, section 3.1, for learned variances. */
#include <math.h>

#include "diffusion/gaussian.h"
#include "diffusion/losses.h"

dmi_reverse dmi_reverse_at(const dm_scheduler *scheduler, int32_t t, double clip) {
    const dm_scheduler_options *o = &scheduler->options;
    dmi_reverse r = {.t = t,
                     .variance_type = o->variance_type,
                     .mean_is_output = o->prediction_type == DM_PREDICTION_MEAN,
                     .x0 = dmi_prediction_mix_at(scheduler, o->prediction_type, DM_PREDICTION_X0, t),
                     .clip = clip,
                     .posterior = dmi_posterior_at(scheduler, t),
                     .min_log = dmi_posterior_log_variance(scheduler, t),
                     .max_log = log(scheduler->betas[t])};
    r.log_variance = o->variance_type == DM_VARIANCE_FIXED_LARGE && t > 0 ? r.max_log : r.min_log;
    return r;
}

/* x0 keeps a NaN. */
dmi_moments dmi_reverse_moments(const dmi_reverse *r, double output, double v, double x_t) {
    dmi_moments m = {.x0 = r->x0.sample * x_t + r->x0.output * output, .log_variance = r->log_variance};
    m.is_clamped = r->clip > 0 && fabs(m.x0) > r->clip;
    if (m.is_clamped) m.x0 = copysign(r->clip, m.x0);
    m.mean = r->mean_is_output ? output : r->posterior.of_x0 * m.x0 + r->posterior.of_x_t * x_t;
    if (r->variance_type == DM_VARIANCE_LEARNED) m.log_variance = v;
    if (r->variance_type == DM_VARIANCE_LEARNED_RANGE)
        m.log_variance = 0.5 * (v + 1.0) * r->max_log + 0.5 * (1.0 - v) * r->min_log;
    return m;
}

/* d: of the mean and the logarithm of the variance -> of output and v. */
static void chain(const dmi_reverse *r, const dmi_moments *m, double *d) {
    if (!r->mean_is_output) d[0] *= m->is_clamped ? 0.0 : r->posterior.of_x0 * r->x0.output;
    if (r->variance_type == DM_VARIANCE_LEARNED_RANGE) d[1] *= 0.5 * (r->max_log - r->min_log);
    if (!dmi_variance_is_learned(r->variance_type)) d[1] = 0.0;
}

double dmi_reverse_term(const dmi_reverse *r, double output, double v, double x0, double x_t, double *x0_pred,
                        double *d) {
    const dmi_moments m = dmi_reverse_moments(r, output, v, x_t);
    double slopes[4], term;
    if (r->t == 0) {
        term = -dmi_discretized_normal(x0, m.mean, 0.5 * m.log_variance, slopes);
        slopes[2] = -slopes[0];
        slopes[3] = -0.5 * slopes[1];
    } else {
        const double mean = r->posterior.of_x0 * x0 + r->posterior.of_x_t * x_t;
        term = dmi_normal_kl(mean, r->min_log, m.mean, m.log_variance, slopes);
    }
    *x0_pred = m.x0;
    if (d) {
        d[0] = slopes[2];
        d[1] = slopes[3];
        chain(r, &m, d);
    }
    return term;
}

/* ---- the arguments that the public functions share ---- */

dm_status dmi_loss_check_signal(const dm_scheduler *scheduler, const dm_loss_options *options,
                                const dm_tensor *t) {
    const dm_prediction_type type = scheduler->options.prediction_type;
    if (options && options->bound == DM_LOSS_BOUND_NONE) return DM_OK;
    if (!dmi_prediction_needs_signal(type, DM_PREDICTION_X0)) return DM_OK;
    for (int64_t b = 0; b < t->shape[0]; b++)
        if (scheduler->alpha_bars[dmi_timestep_of(t, b)] == 0.0)
            return dmi_fail(DM_ERROR_UNSUPPORTED,
                            "t[%lld]: alpha_bar[%d] is 0, where epsilon and the score determine no x0",
                            (long long)b, (int)dmi_timestep_of(t, b));
    return DM_OK;
}

/* output: of the network, [B,2C,...] for samples [B,C,...] with a learned variance. */
static dm_status check_output(const dm_scheduler *scheduler, const dm_tensor *output,
                              const dm_tensor *sample) {
    int64_t shape[DM_TENSOR_MAX_RANK];
    const int learned = dmi_variance_is_learned(scheduler->options.variance_type);
    if (learned && sample->rank < 2)
        return dmi_fail(DM_ERROR_SHAPE, "output: expected [B,2C,...] with a learned variance");
    for (int32_t k = 0; k < sample->rank; k++) shape[k] = sample->shape[k] * (learned && k == 1 ? 2 : 1);
    return dmi_tensor_check_contiguous(output, "output", sample->dtype, sample->rank, shape);
}

typedef struct moments_task {
    const dm_scheduler *scheduler;
    const dm_tensor *t;
    dmi_numbers output, x_t, x0, outputs[4]; /* mean, variance, log variance, x0 */
    int64_t numel;
    int32_t halves;
    double *terms; /* [B], or NULL */
} moments_task;

static void moments_sample(void *arg, int64_t b, int32_t worker) {
    const moments_task *task = arg;
    const dm_scheduler_options *o = &task->scheduler->options;
    const int64_t n = task->numel, first = b * n;
    const dmi_reverse r = dmi_reverse_at(task->scheduler, dmi_timestep_of(task->t, b),
                                         o->clip_sample ? o->clip_sample_range : 0.0);
    const int is_exact = r.t == 0 && o->variance_type == DM_VARIANCE_FIXED_SMALL;
    double sum = 0.0;
    (void)worker;
    for (int64_t i = 0; i < n; i++) {
        const double output = dmi_get(task->output, task->halves * first + i);
        const double v = task->halves == 2 ? dmi_get(task->output, 2 * first + n + i) : 0.0;
        const double x_t = dmi_get(task->x_t, first + i);
        const dmi_moments m = dmi_reverse_moments(&r, output, v, x_t);
        double x0_pred = m.x0;
        if (task->terms)
            sum += dmi_reverse_term(&r, output, v, dmi_get(task->x0, first + i), x_t, &x0_pred, NULL);
        const double values[4] = {m.mean, is_exact ? 0.0 : exp(m.log_variance), m.log_variance, x0_pred};
        for (int k = 0; k < 4; k++) dmi_put(task->outputs[k], first + i, values[k]);
    }
    if (task->terms) task->terms[b] = sum / (double)n / DMI_LN2;
}

/* Checks and runs; x0 and terms NULL: no bound. */
static dm_status run_moments(const dm_scheduler *scheduler, const dm_tensor *output, const dm_tensor *x0,
                             const dm_tensor *x_t, const dm_tensor *t, dm_tensor *const outputs[4],
                             dm_tensor *terms) {
    static const char *const names[4] = {"mean", "variance", "log_variance", "x0"};
    dm_status status = DM_OK;
    moments_task task = {.scheduler = scheduler, .t = t};
    if (!scheduler) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected a handle, got NULL");
    DM_TRY(dmi_check_samples(x_t, "x_t"));
    DM_TRY(check_output(scheduler, output, x_t));
    if (terms) DM_TRY(dmi_tensor_check_contiguous(x0, "x0", x_t->dtype, x_t->rank, x_t->shape));
    DM_TRY(dmi_check_timesteps(scheduler, t, x_t->shape[0]));
    DM_TRY(dmi_loss_check_signal(scheduler, NULL, t));
    for (int k = 0; k < 4; k++) {
        if (outputs[k])
            DM_TRY(dmi_tensor_check_contiguous(outputs[k], terms ? "x0_pred" : names[k], x_t->dtype,
                                               x_t->rank, x_t->shape));
        task.outputs[k] = dmi_numbers_of(outputs[k]);
    }
    DM_TRY(dmi_check_per_sample(terms, "terms", x_t->shape[0]));
    task.output = dmi_numbers_of(output);
    task.x_t = dmi_numbers_of(x_t);
    task.x0 = dmi_numbers_of(x0);
    task.numel = dm_tensor_numel(x_t) / x_t->shape[0];
    task.halves = dmi_variance_is_learned(scheduler->options.variance_type) ? 2 : 1;
    task.terms = terms ? terms->data : NULL;
    dmi_parallel(scheduler->context, x_t->shape[0], moments_sample, &task);
done:
    return status;
}

dm_status dm_scheduler_reverse_moments(const dm_scheduler *scheduler, const dm_tensor *output,
                                       const dm_tensor *x_t, const dm_tensor *t, dm_tensor *mean,
                                       dm_tensor *variance, dm_tensor *log_variance, dm_tensor *x0) {
    dm_tensor *const outputs[4] = {mean, variance, log_variance, x0};
    return run_moments(scheduler, output, NULL, x_t, t, outputs, NULL);
}

dm_status dm_scheduler_bound_terms(const dm_scheduler *scheduler, const dm_tensor *output,
                                   const dm_tensor *x0, const dm_tensor *x_t, const dm_tensor *t,
                                   dm_tensor *terms, dm_tensor *x0_pred) {
    dm_tensor *const outputs[4] = {NULL, NULL, NULL, x0_pred};
    if (!terms) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "terms: expected a tensor, got NULL");
    return run_moments(scheduler, output, x0, x_t, t, outputs, terms);
}

/* ---- the prior ---- */

typedef struct prior_task {
    double a, log_variance;
    dmi_numbers x0;
    int64_t numel;
    double *terms;
} prior_task;

static void prior_sample(void *arg, int64_t b, int32_t worker) {
    const prior_task *task = arg;
    double sum = 0.0;
    (void)worker;
    for (int64_t i = b * task->numel; i < (b + 1) * task->numel; i++)
        sum += dmi_normal_kl(task->a * dmi_get(task->x0, i), task->log_variance, 0.0, 0.0, NULL);
    task->terms[b] = sum / (double)task->numel / DMI_LN2;
}

dm_status dm_scheduler_prior_terms(const dm_scheduler *scheduler, const dm_tensor *x0, dm_tensor *terms) {
    dm_status status = DM_OK;
    if (!scheduler) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected a handle, got NULL");
    if (!terms) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "terms: expected a tensor, got NULL");
    DM_TRY(dmi_check_samples(x0, "x0"));
    DM_TRY(dmi_check_per_sample(terms, "terms", x0->shape[0]));
    const double alpha_bar = scheduler->alpha_bars[scheduler->options.num_train_timesteps - 1];
    prior_task task = {.a = sqrt(alpha_bar),
                       .log_variance = log(1.0 - alpha_bar),
                       .x0 = dmi_numbers_of(x0),
                       .numel = dm_tensor_numel(x0) / x0->shape[0],
                       .terms = terms->data};
    dmi_parallel(scheduler->context, x0->shape[0], prior_sample, &task);
done:
    return status;
}

/* ---- the training loss ---- */

/* Number i of sample b: adds to sums (cost, term) and writes the gradient. */
static void loss_element(const dmi_loss_batch *l, const dmi_reverse *r, dmi_target target, double factors[2],
                         double sums[2], int64_t b, int64_t i) {
    const int64_t at = b * l->numel + i, output_at = l->halves * b * l->numel + i;
    const double alpha_bar = l->scheduler->alpha_bars[r->t];
    const double x0 = dmi_get(l->x0, at), noise = dmi_get(l->noise, at),
                 output = dmi_get(l->output, output_at);
    double slope = 0.0, d[2] = {0.0, 0.0}, x0_pred;
    if (l->options.bound != DM_LOSS_BOUND_NONE) {
        const double v = l->halves == 2 ? dmi_get(l->output, output_at + l->numel) : 0.0;
        sums[1] += dmi_reverse_term(r, output, v, x0, sqrt(alpha_bar) * x0 + sqrt(1.0 - alpha_bar) * noise,
                                    &x0_pred, d);
        if (l->options.bound == DM_LOSS_BOUND_HYBRID) d[0] = 0.0;
    }
    sums[0] += dmi_loss_cost(l->options.type, l->options.delta,
                             output - target.on_x0 * x0 - target.on_eps * noise, &slope);
    dmi_put(l->grad, output_at, factors[0] * slope + factors[1] * d[0]);
    if (l->halves == 2) dmi_put(l->grad, output_at + l->numel, factors[1] * d[1]);
}

static void loss_sample(void *arg, int64_t b, int32_t worker) {
    const dmi_loss_batch *l = arg;
    const dm_loss_options *o = &l->options;
    const int32_t t = dmi_timestep_of(l->t, b);
    const dmi_reverse r = dmi_reverse_at(l->scheduler, t, 0.0);
    const dmi_target target = dmi_prediction_target(l->scheduler, l->scheduler->options.prediction_type, t);
    const double n = (double)l->numel, T = l->scheduler->options.num_train_timesteps;
    const double on_cost = o->bound == DM_LOSS_BOUND_ONLY ? 0.0 : dmi_loss_weight_at(l->scheduler, o, t);
    const double on_term = o->bound == DM_LOSS_BOUND_NONE ? 0.0 : o->bound_weight * T;
    const double scale = l->grad_scale * dmi_weight_at(l->weights, b) / ((double)l->batch * n);
    double factors[2] = {scale * on_cost, scale * on_term / DMI_LN2}, sums[2] = {0.0, 0.0};
    (void)worker;
    for (int64_t i = 0; i < l->numel; i++) loss_element(l, &r, target, factors, sums, b, i);
    const double cost = sums[0] / n, term = sums[1] / n / DMI_LN2;
    l->losses[b] = on_cost * cost + on_term * term;
    if (l->terms) {
        l->terms[2 * b] = cost;
        l->terms[2 * b + 1] = term;
    }
}

void dmi_loss_run(const dmi_loss_batch *batch, dm_context *context) {
    dmi_parallel(context, batch->batch, loss_sample, (void *)batch);
}

static dm_status check_loss_tensors(const dm_scheduler *scheduler, const dm_tensor *output,
                                    const dm_tensor *x0, const dm_tensor *noise, const dm_tensor *t,
                                    const dm_tensor *weights, const dm_tensor *sample_losses,
                                    const dm_tensor *terms, const dm_tensor *grad) {
    dm_status status = DM_OK;
    DM_TRY(dmi_check_samples(x0, "x0"));
    DM_TRY(check_output(scheduler, output, x0));
    DM_TRY(dmi_tensor_check_contiguous(noise, "noise", x0->dtype, x0->rank, x0->shape));
    DM_TRY(dmi_check_timesteps(scheduler, t, x0->shape[0]));
    DM_TRY(dmi_check_weights(weights, x0->shape[0]));
    DM_TRY(dmi_check_per_sample(sample_losses, "sample_losses", x0->shape[0]));
    const int64_t two[2] = {x0->shape[0], 2};
    if (terms) DM_TRY(dmi_tensor_check_contiguous(terms, "terms", DM_DTYPE_F64, 2, two));
    if (grad) DM_TRY(dmi_tensor_check_contiguous(grad, "grad", output->dtype, output->rank, output->shape));
done:
    return status;
}

dm_status dm_scheduler_loss(const dm_scheduler *scheduler, const dm_loss_options *options,
                            const dm_tensor *output, const dm_tensor *x0, const dm_tensor *noise,
                            const dm_tensor *t, const dm_tensor *weights, double *loss,
                            dm_tensor *sample_losses, dm_tensor *terms, dm_tensor *grad) {
    dm_status status = DM_OK;
    dmi_loss_batch l = {.scheduler = scheduler, .t = t, .grad_scale = 1.0};
    if (!scheduler) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected a handle, got NULL");
    DM_TRY(dmi_loss_options_read(options, &l.options));
    DM_TRY(dmi_loss_options_check_variance(&l.options, scheduler));
    DM_TRY(check_loss_tensors(scheduler, output, x0, noise, t, weights, sample_losses, terms, grad));
    DM_TRY(dmi_loss_check_signal(scheduler, &l.options, t));
    l.batch = x0->shape[0];
    l.numel = dm_tensor_numel(x0) / l.batch;
    l.halves = dmi_variance_is_learned(scheduler->options.variance_type) ? 2 : 1;
    l.output = dmi_numbers_of(output);
    l.x0 = dmi_numbers_of(x0);
    l.noise = dmi_numbers_of(noise);
    l.weights = dmi_numbers_of(weights);
    l.grad = dmi_numbers_of(grad);
    l.terms = terms ? terms->data : NULL;
    l.losses = dmi_alloc_array(scheduler->context, (size_t)l.batch, sizeof *l.losses);
    if (l.losses == NULL) return DM_ERROR_OUT_OF_MEMORY;
    dmi_loss_run(&l, scheduler->context);
    const double value = dmi_mean_loss(l.losses, l.weights, l.batch, sample_losses);
    if (loss) *loss = value;
    dmi_free(scheduler->context, l.losses);
done:
    return status;
}
