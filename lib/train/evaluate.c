/* Bits per dimension: the variational bound, term by term. */
#include "diffusion/evaluate.h"

#include <math.h>

#include "diffusion/losses.h"
#include "train/evaluate.h"

/* Buffers of one batch and the network. A pass evaluates one timestep of every sample. */
typedef struct bound {
    const dm_scheduler *scheduler;
    dm_denoise_fn denoise;
    void *user;
    dm_tensor *x_t, *noise, *output, *x0_pred;   /* samples */
    dm_tensor *t, *net_t;                        /* [B] i32, f32 */
    dm_tensor *terms, *x0_errors, *noise_errors; /* [B] f64, of the last pass */
    const float *x0;                             /* of the last pass */
    int64_t numel;
} bound;

static void bound_end(bound *w) {
    dm_tensor *const tensors[] = {w->x_t,   w->noise, w->output,    w->x0_pred,     w->t,
                                  w->net_t, w->terms, w->x0_errors, w->noise_errors};
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) dm_tensor_destroy(tensors[i]);
}

static dm_status check_process(const dm_scheduler *scheduler) {
    if (!scheduler) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected a handle, got NULL");
    if (scheduler->options.process <= DM_PROCESS_DISCRETE) return DM_OK;
    return dmi_fail(DM_ERROR_UNSUPPORTED, "scheduler: the bound is of the discrete process, got process %d",
                    (int)scheduler->options.process);
}

static dm_status bound_begin(bound *w, const dm_scheduler *scheduler, dm_denoise_fn denoise, void *user,
                             int32_t rank, const int64_t *shape) {
    dm_status status = DM_OK;
    dm_context *context = scheduler->context;
    int64_t out[DM_TENSOR_MAX_RANK];
    *w = (bound){.scheduler = scheduler, .denoise = denoise, .user = user, .numel = 1};
    for (int32_t k = 0; k < rank; k++) {
        out[k] = shape[k] * (k == 1 && dmi_variance_is_learned(scheduler->options.variance_type) ? 2 : 1);
        if (k > 0) w->numel *= shape[k];
    }
    dm_tensor **const samples[] = {&w->x_t, &w->noise, &w->x0_pred};
    dm_tensor **const doubles[] = {&w->terms, &w->x0_errors, &w->noise_errors};
    for (int i = 0; i < 3; i++) DM_TRY(dm_tensor_create(context, DM_DTYPE_F32, rank, shape, samples[i]));
    for (int i = 0; i < 3; i++) DM_TRY(dm_tensor_create(context, DM_DTYPE_F64, 1, shape, doubles[i]));
    DM_TRY(dm_tensor_create(context, DM_DTYPE_F32, rank, out, &w->output));
    DM_TRY(dm_tensor_create(context, DM_DTYPE_I32, 1, shape, &w->t));
    DM_TRY(dm_tensor_create(context, DM_DTYPE_F32, 1, shape, &w->net_t));
done:
    return status;
}

typedef struct noise_task {
    const bound *w;
    uint64_t seed;
    int64_t first_image;
} noise_task;

/* A stream a timestep, a range of it an image. */
static void draw_image(void *arg, int64_t b, int32_t worker) {
    const noise_task *task = arg;
    const int32_t t = ((const int32_t *)task->w->t->data)[b];
    const uint64_t words = ((uint64_t)task->w->numel + 3) / 4 * 4;
    (void)worker;
    dmi_normal_fill(task->seed, dmi_stream(DMI_PURPOSE_VALIDATION_NOISE, t),
                    (uint64_t)(task->first_image + b) * words, task->w->numel,
                    (float *)task->w->noise->data + b * task->w->numel);
}

/* Errors of the network's x0 and of the noise that belongs to it. */
static void error_image(void *arg, int64_t b, int32_t worker) {
    const bound *w = arg;
    const int32_t t = ((const int32_t *)w->t->data)[b];
    const double a = sqrt(w->scheduler->alpha_bars[t]), s = sqrt(1.0 - w->scheduler->alpha_bars[t]);
    const float *x_t = w->x_t->data, *noise = w->noise->data, *pred = w->x0_pred->data;
    double x0_sum = 0.0, noise_sum = 0.0;
    (void)worker;
    for (int64_t i = b * w->numel; i < (b + 1) * w->numel; i++) {
        const double eps = ((double)x_t[i] - a * (double)pred[i]) / s - (double)noise[i];
        const double x0 = (double)pred[i] - (double)w->x0[i];
        x0_sum += x0 * x0;
        noise_sum += eps * eps;
    }
    ((double *)w->x0_errors->data)[b] = x0_sum / (double)w->numel;
    ((double *)w->noise_errors->data)[b] = noise_sum / (double)w->numel;
}

/* The term at w->t with w->noise. */
static dm_status pass(bound *w, const dm_tensor *x0, const dm_tensor *labels) {
    dm_status status = DM_OK;
    const int64_t batch = x0->shape[0];
    for (int64_t b = 0; b < batch; b++)
        ((float *)w->net_t->data)[b] = (float)((const int32_t *)w->t->data)[b];
    DM_TRY(dm_scheduler_add_noise(w->scheduler, x0, w->noise, w->t, w->x_t));
    const int32_t refused = w->denoise(w->x_t, w->net_t, labels, w->output, w->user);
    if (refused != 0) return dmi_fail(DM_ERROR_CALLBACK, "denoise: expected 0, got %d", (int)refused);
    DM_TRY(dm_scheduler_bound_terms(w->scheduler, w->output, x0, w->x_t, w->t, w->terms, w->x0_pred));
    w->x0 = x0->data;
    dmi_parallel(w->scheduler->context, batch, error_image, w);
done:
    return status;
}

/* ---- one batch, every timestep ---- */

static dm_status check_batch(const dm_scheduler *scheduler, const dm_tensor *x0, const dm_tensor *labels,
                             const dm_tensor *noise, dm_tensor *const outputs[5]) {
    static const char *const names[] = {"total", "prior", "terms", "x0_errors", "noise_errors"};
    const int64_t T = scheduler->options.num_train_timesteps;
    int64_t shape[DM_TENSOR_MAX_RANK];
    dm_status status = DM_OK;
    DM_TRY(dmi_check_samples(x0, "x0"));
    DM_TRY(dmi_tensor_check(x0, "x0", DM_DTYPE_F32, -1, NULL));
    if (x0->rank < 2 || x0->rank >= DM_TENSOR_MAX_RANK)
        return dmi_fail(DM_ERROR_SHAPE, "x0: expected [B,C,H,W] or [B,D], got rank %d", (int)x0->rank);
    if (labels) DM_TRY(dmi_check_labels(labels, x0->shape[0], 0));
    shape[0] = T;
    for (int32_t k = 0; k < x0->rank; k++) shape[k + 1] = x0->shape[k];
    if (noise) DM_TRY(dmi_tensor_check_contiguous(noise, "noise", DM_DTYPE_F32, x0->rank + 1, shape));
    const int64_t table[2] = {x0->shape[0], T};
    for (int k = 0; k < 5; k++)
        if (outputs[k])
            DM_TRY(dmi_tensor_check_contiguous(outputs[k], names[k], DM_DTYPE_F64, k < 2 ? 1 : 2, table));
done:
    return status;
}

static void store(dm_tensor *table, const dm_tensor *column, int32_t t) {
    if (!table) return;
    for (int64_t b = 0; b < table->shape[0]; b++)
        ((double *)table->data)[b * table->shape[1] + t] = ((const double *)column->data)[b];
}

static void add(dm_tensor *total, const dm_tensor *terms) {
    for (int64_t b = 0; total && b < total->shape[0]; b++)
        ((double *)total->data)[b] += ((const double *)terms->data)[b];
}

dm_status dm_evaluate_bits(const dm_scheduler *scheduler, dm_denoise_fn denoise, void *user,
                           const dm_tensor *x0, const dm_tensor *labels, const dm_tensor *noise,
                           uint64_t seed, dm_tensor *total, dm_tensor *prior, dm_tensor *terms,
                           dm_tensor *x0_errors, dm_tensor *noise_errors) {
    dm_tensor *const outputs[5] = {total, prior, terms, x0_errors, noise_errors};
    dm_status status = DM_OK;
    bound w = {0};
    DM_TRY(check_process(scheduler));
    if (!denoise) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "denoise: expected a function, got NULL");
    DM_TRY(check_batch(scheduler, x0, labels, noise, outputs));
    DM_TRY(bound_begin(&w, scheduler, denoise, user, x0->rank, x0->shape));
    DM_TRY(dm_scheduler_prior_terms(scheduler, x0, w.terms));
    if (prior) DM_TRY(dm_tensor_copy(w.terms, prior));
    if (total) DM_TRY(dm_tensor_copy(w.terms, total));
    for (int32_t t = scheduler->options.num_train_timesteps - 1; t >= 0; t--) {
        dm_tensor given;
        DM_TRY(dm_tensor_fill(w.t, t));
        if (noise) {
            dmi_tensor_view(&given, (float *)noise->data + t * dm_tensor_numel(x0), DM_DTYPE_F32, x0->rank,
                            x0->shape);
            DM_TRY(dm_tensor_copy(&given, w.noise));
        } else {
            noise_task task = {&w, seed, 0};
            dmi_parallel(scheduler->context, x0->shape[0], draw_image, &task);
        }
        DM_TRY(pass(&w, x0, labels));
        add(total, w.terms);
        store(terms, w.terms, t);
        store(x0_errors, w.x0_errors, t);
        store(noise_errors, w.noise_errors, t);
    }
done:
    bound_end(&w);
    return status;
}

/* ---- a data set ---- */

void dm_evaluate_options_init(dm_evaluate_options *options, uint32_t struct_size) {
    static const dm_evaluate_options defaults = {.struct_size = sizeof(dm_evaluate_options), .batch = 64};
    dmi_options_init(options, struct_size, &defaults, sizeof defaults);
}

/* Sums over images. */
typedef struct tally {
    int64_t images;
    double bits, squares, prior;
    double *sums[3]; /* [T] of terms, x0 errors, noise errors */
    int64_t *visits; /* [T] */
} tally;

static void count(tally *sum, const bound *w, int64_t batch) {
    const double *values[3] = {w->terms->data, w->x0_errors->data, w->noise_errors->data};
    for (int64_t b = 0; b < batch; b++) {
        const int32_t t = ((const int32_t *)w->t->data)[b];
        for (int k = 0; k < 3; k++) sum->sums[k][t] += values[k][b];
        sum->visits[t]++;
    }
}

/* Timestep of image number `image` in part k of K: uniform within the part. */
static int32_t part_timestep(int32_t T, int32_t k, int32_t parts, uint64_t seed, int64_t image) {
    const int64_t first = (int64_t)T * k / parts, last = (int64_t)T * (k + 1) / parts;
    const uint64_t stream = dmi_stream(DMI_PURPOSE_VALIDATION_T, 1 + k);
    return (int32_t)(first + dmi_random_below(seed, stream, 2 * (uint64_t)image, (uint64_t)(last - first)));
}

/* Images first.. of the data set; bits [B]: their bounds. */
static dm_status run_batch(bound *w, const dmi_evaluation *e, const dm_tensor *x0, const dm_tensor *labels,
                           int64_t first, double *bits, tally *sum) {
    dm_status status = DM_OK;
    const int32_t T = w->scheduler->options.num_train_timesteps;
    const int32_t parts = e->options.timesteps_per_image > 0 ? e->options.timesteps_per_image : T;
    const int64_t batch = x0->shape[0];
    DM_TRY(dm_scheduler_prior_terms(w->scheduler, x0, w->terms));
    for (int64_t b = 0; b < batch; b++) {
        bits[b] = ((const double *)w->terms->data)[b];
        sum->prior += bits[b];
    }
    for (int32_t k = parts - 1; k >= 0; k--) {
        /* the part has so many timesteps, of which the image visits one */
        const double size = (double)((int64_t)T * (k + 1) / parts - (int64_t)T * k / parts);
        for (int64_t b = 0; b < batch; b++)
            ((int32_t *)w->t->data)[b] = part_timestep(T, k, parts, e->options.seed, first + b);
        noise_task task = {w, e->options.seed, first};
        dmi_parallel(w->scheduler->context, batch, draw_image, &task);
        DM_TRY(pass(w, x0, labels));
        for (int64_t b = 0; b < batch; b++) bits[b] += size * ((const double *)w->terms->data)[b];
        count(sum, w, batch);
    }
    for (int64_t b = 0; b < batch; b++) {
        sum->bits += bits[b];
        sum->squares += bits[b] * bits[b];
    }
    sum->images += batch;
done:
    return status;
}

static dm_status report(const tally *sum, int32_t T, double *bits, double *error, double *prior,
                        dm_tensor *const tables[3]) {
    const double n = (double)sum->images, mean = sum->bits / n;
    if (!isfinite(mean)) return dmi_fail(DM_ERROR_NUMERIC, "bits: expected a finite number, got %g", mean);
    if (bits) *bits = mean;
    if (error) *error = n > 1 ? sqrt(fmax(0.0, sum->squares / n - mean * mean) / (n - 1.0)) : (double)NAN;
    if (prior) *prior = sum->prior / n;
    for (int k = 0; k < 3; k++)
        for (int32_t t = 0; tables[k] && t < T; t++)
            ((double *)tables[k]->data)[t * tables[k]->strides[0]] =
                sum->visits[t] > 0 ? sum->sums[k][t] / (double)sum->visits[t] : (double)NAN;
    return DM_OK;
}

/* What runs over the data: e is ready, w has its buffers. */
static dm_status run_data(bound *w, dmi_evaluation *e, tally *sum) {
    dm_status status = DM_OK;
    double *bits = dmi_alloc_array(w->scheduler->context, (size_t)e->options.batch, sizeof *bits);
    if (!bits) return DM_ERROR_OUT_OF_MEMORY;
    for (int64_t first = 0; first < e->num_images; first += e->options.batch) {
        DM_TRY(dmi_evaluation_read(e, first));
        /* a smaller last batch: the same buffers, seen as smaller tensors */
        bound part = *w;
        dm_tensor views[9];
        dm_tensor **const tensors[] = {&part.x_t,   &part.noise, &part.output,    &part.x0_pred,     &part.t,
                                       &part.net_t, &part.terms, &part.x0_errors, &part.noise_errors};
        for (int i = 0; i < 9; i++) {
            views[i] = **tensors[i];
            views[i].shape[0] = e->x0.shape[0];
            *tensors[i] = &views[i];
        }
        DM_TRY(run_batch(&part, e, &e->x0, e->has_labels ? &e->labels : NULL, first, bits, sum));
    }
done:
    dmi_free(w->scheduler->context, bits);
    return status;
}

static dm_status check_tables(const dm_scheduler *scheduler, dm_tensor *const tables[3]) {
    static const char *const names[] = {"terms", "x0_errors", "noise_errors"};
    const int64_t T = scheduler->options.num_train_timesteps;
    dm_status status = DM_OK;
    for (int k = 0; k < 3; k++)
        if (tables[k]) DM_TRY(dmi_tensor_check(tables[k], names[k], DM_DTYPE_F64, 1, &T));
done:
    return status;
}

dm_status dm_evaluate_net_bits(const dm_net *net, const dm_scheduler *scheduler, dm_dataset *data,
                               const dm_evaluate_options *options, double *bits, double *error, double *prior,
                               dm_tensor *terms, dm_tensor *x0_errors, dm_tensor *noise_errors) {
    dm_tensor *const tables[3] = {terms, x0_errors, noise_errors};
    dm_status status = DM_OK;
    dmi_evaluation e = {0};
    bound w = {0};
    tally sum = {0};
    DM_TRY(check_process(scheduler));
    DM_TRY(check_tables(scheduler, tables));
    const int32_t T = scheduler->options.num_train_timesteps;
    DM_TRY(dmi_evaluation_begin(&e, net, data, options, T));
    const int32_t want =
        net->in_channels * (dmi_variance_is_learned(scheduler->options.variance_type) ? 2 : 1);
    if (net->out_channels != want)
        DM_TRY(dmi_fail(DM_ERROR_UNSUPPORTED, "net: expected %d output channels, got %d", (int)want,
                        (int)net->out_channels));
    DM_TRY(bound_begin(&w, scheduler, dmi_evaluation_denoise, &e, e.x0.rank, e.x0.shape));
    sum.visits = dmi_calloc(scheduler->context, (size_t)T * sizeof *sum.visits);
    for (int k = 0; k < 3; k++) sum.sums[k] = dmi_calloc(scheduler->context, (size_t)T * sizeof(double));
    if (!sum.visits || !sum.sums[0] || !sum.sums[1] || !sum.sums[2]) DM_TRY(DM_ERROR_OUT_OF_MEMORY);
    status = run_data(&w, &e, &sum);
    if (status == DM_ERROR_CALLBACK && e.status != DM_OK) status = e.status; /* of the network itself */
    if (status == DM_OK) status = report(&sum, T, bits, error, prior, tables);
done:
    if (scheduler) {
        dmi_free(scheduler->context, sum.visits);
        for (int k = 0; k < 3; k++) dmi_free(scheduler->context, sum.sums[k]);
    }
    bound_end(&w);
    dmi_evaluation_end(&e);
    return status;
}
