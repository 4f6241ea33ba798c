/* The walk over a data set that evaluations share, and classifiers. */
#include <math.h>
#include <string.h>

#include "diffusion/losses.h"
#include "graph/session.h"
#include "train/evaluate.h"

static dm_status check_options(const dm_evaluate_options *o, int32_t T) {
    if (o->batch < 1)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.batch: expected a number >= 1, got %d",
                        (int)o->batch);
    if (o->num_images < 0)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.num_images: expected a number >= 0, got %lld",
                        (long long)o->num_images);
    if (o->timesteps_per_image < 0 || o->timesteps_per_image > T)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.timesteps_per_image: expected 0..%d, got %d",
                        (int)T, (int)o->timesteps_per_image);
    if (o->timestep < 0 || o->timestep >= T)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.timestep: expected 0..%d, got %d", (int)T - 1,
                        (int)o->timestep);
    return DM_OK;
}

/* The network's view of the first `batch` images. */
static void view_batch(dmi_evaluation *e, int64_t batch) {
    const int64_t *image = e->data->shape;
    const int64_t shape[4] = {batch, image[0], image[1], image[2]};
    const int64_t flat[2] = {batch, image[0] * image[1] * image[2]};
    dmi_tensor_view(&e->x0, e->images->data, DM_DTYPE_F32, e->net->is_image ? 4 : 2,
                    e->net->is_image ? shape : flat);
    const dm_tensor *all = e->all_labels;
    dmi_tensor_view(&e->labels, all->data, all->dtype, all->rank, (int64_t[]){batch, all->shape[1]});
}

static dm_status check_data(const dmi_evaluation *e) {
    const int64_t *image = e->data->shape;
    const int64_t channels = e->net->is_image ? image[0] : image[0] * image[1] * image[2];
    if (channels == e->net->in_channels && e->net->label_node >= 0)
        return dmi_dataset_check_labels(e->data, "data", e->net->label_width);
    if (channels == e->net->in_channels) return DM_OK;
    return dmi_fail(DM_ERROR_SHAPE, "data: expected images of the network's %d inputs, got [%lld,%lld,%lld]",
                    (int)e->net->in_channels, (long long)image[0], (long long)image[1], (long long)image[2]);
}

static dm_status create(dmi_evaluation *e) {
    dm_status status = DM_OK;
    const int64_t *image = e->data->shape;
    const int64_t shape[4] = {e->options.batch, image[0], image[1], image[2]};
    const int64_t width = e->data->next != NULL ? e->net->label_width : dmi_dataset_label_width(e->data);
    const int64_t label_shape[2] = {e->options.batch, width};
    const int vectors = width > 0;
    dm_session_options options;
    dm_session_options_init(&options, sizeof options);
    options.batch = e->options.batch;
    options.height = e->net->is_image ? (int32_t)image[1] : 0;
    options.width = e->net->is_image ? (int32_t)image[2] : 0;
    options.storage_dtype = e->options.storage_dtype;
    DM_TRY(dm_session_create(e->net, &options, &e->session));
    DM_TRY(dm_tensor_create(e->net->context, DM_DTYPE_F32, 4, shape, &e->images));
    DM_TRY(dm_tensor_create(e->net->context, vectors ? DM_DTYPE_F32 : DM_DTYPE_I32, vectors ? 2 : 1,
                            label_shape, &e->all_labels));
    view_batch(e, e->options.batch);
done:
    return status;
}

dm_status dmi_evaluation_begin(dmi_evaluation *e, const dm_net *net, dm_dataset *data,
                               const dm_evaluate_options *options, int32_t T) {
    dm_status status = DM_OK;
    if (net == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "net: expected a network, got NULL");
    if (data == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "data: expected a data set, got NULL");
    *e = (dmi_evaluation){
        .net = net, .data = data, .has_labels = net->label_node >= 0 && dmi_dataset_has_labels(data)};
    dm_evaluate_options_init(&e->options, sizeof e->options);
    if (options) DM_TRY(dmi_options_read(&e->options, sizeof e->options, options, "dm_evaluate_options"));
    DM_TRY(check_options(&e->options, T));
    DM_TRY(check_data(e));
    e->num_images =
        e->options.num_images == 0 || e->options.num_images > data->size ? data->size : e->options.num_images;
    if (e->options.batch > e->num_images) e->options.batch = (int32_t)e->num_images;
    if (data->next != NULL) e->num_images -= e->num_images % e->options.batch;
    DM_TRY(create(e));
done:
    return status;
}

void dmi_evaluation_end(dmi_evaluation *e) {
    dm_session_destroy(e->session);
    dm_tensor_destroy(e->images);
    dm_tensor_destroy(e->all_labels);
}

dm_status dmi_evaluation_read(dmi_evaluation *e, int64_t first) {
    const int64_t left = e->num_images - first;
    const int64_t batch = left < e->options.batch ? left : e->options.batch;
    const int64_t shape[4] = {batch, e->data->shape[0], e->data->shape[1], e->data->shape[2]};
    dm_tensor images;
    view_batch(e, batch);
    dmi_tensor_view(&images, e->images->data, DM_DTYPE_F32, 4, shape);
    dm_tensor *labels = dmi_dataset_has_labels(e->data) ? &e->labels : NULL;
    if (e->data->next != NULL) return dm_dataset_next(e->data, &images, labels);
    dmi_dataset_read(e->data, first, &images, labels);
    return DM_OK;
}

int32_t dmi_evaluation_denoise(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels,
                               dm_tensor *out, void *user) {
    dmi_evaluation *e = user;
    e->status = dm_session_forward(e->session, x, t, labels, out);
    return e->status;
}

/* ---- classifiers ---- */

typedef struct answers {
    dm_tensor *logits, *noise, *t, *net_t;
    int64_t *confusion; /* [K][K] */
    double *losses;     /* [B] */
    double loss;        /* sum */
} answers;

static dm_status answers_begin(answers *a, const dmi_evaluation *e) {
    dm_status status = DM_OK;
    dm_context *context = e->net->context;
    const int64_t classes = e->net->out_channels, shape[4] = {e->x0.shape[0], classes, 1, 1};
    const int32_t rank = e->net->is_image && !e->net->out_is_vector ? 4 : 2;
    DM_TRY(dm_tensor_create(context, DM_DTYPE_F32, rank, shape, &a->logits));
    DM_TRY(dm_tensor_create(context, DM_DTYPE_F32, e->x0.rank, e->x0.shape, &a->noise));
    DM_TRY(dm_tensor_create(context, DM_DTYPE_I32, 1, shape, &a->t));
    DM_TRY(dm_tensor_create(context, DM_DTYPE_F32, 1, shape, &a->net_t));
    a->confusion = dmi_calloc(context, (size_t)(classes * classes) * sizeof *a->confusion);
    a->losses = dmi_alloc_array(context, (size_t)shape[0], sizeof *a->losses);
    if (!a->confusion || !a->losses) status = DM_ERROR_OUT_OF_MEMORY;
done:
    return status;
}

static void answers_end(answers *a, dm_context *context) {
    dm_tensor *const tensors[] = {a->logits, a->noise, a->t, a->net_t};
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) dm_tensor_destroy(tensors[i]);
    dmi_free(context, a->confusion);
    dmi_free(context, a->losses);
}

static dm_status check_labels(const dmi_evaluation *e, int64_t first) {
    const int32_t *labels = e->labels.data;
    for (int64_t b = 0; b < e->x0.shape[0]; b++)
        if (labels[b] < 0 || labels[b] >= e->net->out_channels)
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "data: label of image %lld: expected 0..%d, got %d",
                            (long long)(first + b), (int)e->net->out_channels - 1, (int)labels[b]);
    return DM_OK;
}

/* Noises e->x0 in place. */
static dm_status noise_images(answers *a, dmi_evaluation *e, const dm_scheduler *scheduler, int64_t first) {
    const int64_t batch = e->x0.shape[0], numel = dm_tensor_numel(&e->x0) / batch;
    const uint64_t words = ((uint64_t)numel + 3) / 4 * 4;
    const uint64_t stream = dmi_stream(DMI_PURPOSE_VALIDATION_NOISE, e->options.timestep);
    for (int64_t b = 0; b < batch; b++)
        dmi_normal_fill(e->options.seed, stream, (uint64_t)(first + b) * words, numel,
                        (float *)a->noise->data + b * numel);
    dm_tensor noise, t;
    dmi_tensor_view(&noise, a->noise->data, DM_DTYPE_F32, e->x0.rank, e->x0.shape);
    dmi_tensor_view(&t, a->t->data, DM_DTYPE_I32, 1, &batch);
    return dm_scheduler_add_noise(scheduler, &e->x0, &noise, &t, &e->x0);
}

static int64_t largest(const float *logits, int64_t classes) {
    int64_t best = 0;
    for (int64_t k = 1; k < classes; k++)
        if (logits[k] > logits[best]) best = k;
    return best;
}

static dm_status run_batch(answers *a, dmi_evaluation *e, const dm_scheduler *scheduler, int64_t first) {
    dm_status status = DM_OK;
    const int64_t classes = e->net->out_channels;
    DM_TRY(dmi_evaluation_read(e, first));
    DM_TRY(check_labels(e, first));
    if (scheduler) DM_TRY(noise_images(a, e, scheduler, first));
    const int64_t batch = e->x0.shape[0];
    dm_tensor logits = *a->logits, t = *a->net_t;
    logits.shape[0] = t.shape[0] = batch;
    DM_TRY(dm_session_forward(e->session, &e->x0, &t, NULL, &logits));
    const dmi_entropy_batch entropy = {.logits = {logits.data, 0},
                                       .labels = &e->labels,
                                       .batch = batch,
                                       .classes = classes,
                                       .losses = a->losses};
    dmi_entropy_run(&entropy, e->net->context);
    for (int64_t b = 0; b < batch; b++) {
        const int64_t label = ((const int32_t *)e->labels.data)[b];
        a->confusion[label * classes + largest((const float *)logits.data + b * classes, classes)]++;
        a->loss += a->losses[b];
    }
done:
    return status;
}

static void report(const answers *a, const dmi_evaluation *e, dm_tensor *confusion, dm_tensor *class_accuracy,
                   double *accuracy, double *loss) {
    const int64_t classes = e->net->out_channels;
    int64_t right = 0;
    for (int64_t k = 0; k < classes; k++) {
        const int64_t *row = a->confusion + k * classes;
        int64_t images = 0;
        for (int64_t j = 0; j < classes; j++) images += row[j];
        if (class_accuracy)
            ((double *)class_accuracy->data)[k] = images > 0 ? (double)row[k] / (double)images : (double)NAN;
        right += row[k];
    }
    if (confusion) memcpy(confusion->data, a->confusion, (size_t)(classes * classes) * sizeof *a->confusion);
    if (accuracy) *accuracy = (double)right / (double)e->num_images;
    if (loss) *loss = a->loss / (double)e->num_images;
}

dm_status dm_evaluate_classifier(const dm_net *net, const dm_scheduler *scheduler, dm_dataset *data,
                                 const dm_evaluate_options *options, dm_tensor *confusion,
                                 dm_tensor *class_accuracy, double *accuracy, double *loss) {
    dm_status status = DM_OK;
    dmi_evaluation e = {0};
    answers a = {0};
    DM_TRY(dmi_evaluation_begin(&e, net, data, options,
                                scheduler ? dm_scheduler_num_train_timesteps(scheduler) : 1));
    const int64_t classes[2] = {net->out_channels, net->out_channels};
    if (e.session->output_shape.h * e.session->output_shape.w != 1 || net->label_node >= 0)
        DM_TRY(dmi_fail(DM_ERROR_UNSUPPORTED, "net: expected a classifier, got %s", net->architecture));
    if (!dmi_dataset_has_labels(data))
        DM_TRY(dmi_fail(DM_ERROR_STATE, "data: expected labels, got a data set without"));
    DM_TRY(dmi_dataset_check_labels(data, "data", 0));
    if (confusion) DM_TRY(dmi_tensor_check_contiguous(confusion, "confusion", DM_DTYPE_I64, 2, classes));
    if (class_accuracy)
        DM_TRY(dmi_tensor_check_contiguous(class_accuracy, "class_accuracy", DM_DTYPE_F64, 1, classes));
    DM_TRY(answers_begin(&a, &e));
    DM_TRY(dm_tensor_fill(a.t, e.options.timestep));
    DM_TRY(dm_tensor_fill(a.net_t, scheduler ? e.options.timestep : 0));
    for (int64_t first = 0; first < e.num_images; first += e.options.batch)
        DM_TRY(run_batch(&a, &e, scheduler, first));
    report(&a, &e, confusion, class_accuracy, accuracy, loss);
done:
    if (net) answers_end(&a, net->context);
    dmi_evaluation_end(&e);
    return status;
}
