/* Classifier guidance by a dm_net: what a sampler's guide asks for, s grad log p(label | x, t). */
#include <math.h>

#include "diffusion/classifier.h"
#include "graph/net.h"

struct dm_guide {
    const dm_net *net;
    double scale;
    dm_session *session; /* NULL before the first call */
    float *logits;       /* [batch, classes] */
    int64_t batch, height, width;
};

dm_status dm_guide_create(const dm_net *classifier, double scale, dm_guide **out) {
    if (!out) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a place for the guide, got NULL");
    *out = NULL;
    if (!classifier) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "classifier: expected a network, got NULL");
    if (!classifier->is_image || !classifier->out_is_vector)
        return dmi_fail(
            DM_ERROR_INVALID_ARGUMENT,
            "classifier: expected a network from images to logits, got one to images or of vectors");
    if (!isfinite(scale))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scale: expected a finite number, got %g", scale);
    dm_guide *guide = dmi_calloc(classifier->context, sizeof *guide);
    if (!guide) return dm_last_status();
    guide->net = classifier;
    guide->scale = scale;
    *out = guide;
    return DM_OK;
}

void dm_guide_destroy(dm_guide *guide) {
    if (!guide) return;
    dm_session_destroy(guide->session);
    dmi_free(guide->net->context, guide->logits);
    dmi_free(guide->net->context, guide);
}

/* A session for up to `batch` images of this size. */
static dm_status prepare(dm_guide *guide, int64_t batch, int64_t height, int64_t width) {
    dm_session *session = NULL;
    dm_session_options options;
    if (guide->session && batch <= guide->batch && height == guide->height && width == guide->width)
        return DM_OK;
    dm_session_options_init(&options, sizeof options);
    options.mode = DM_SESSION_DIFFERENTIATE;
    options.batch = (int32_t)batch;
    options.height = (int32_t)height;
    options.width = (int32_t)width;
    dm_status status = dm_session_create(guide->net, &options, &session);
    if (status) return status;
    float *logits =
        dmi_alloc_array(guide->net->context, (size_t)(batch * guide->net->out_channels), sizeof *logits);
    if (!logits) {
        dm_session_destroy(session);
        return dm_last_status();
    }
    dm_session_destroy(guide->session);
    dmi_free(guide->net->context, guide->logits);
    guide->session = session;
    guide->logits = logits;
    guide->batch = batch;
    guide->height = height;
    guide->width = width;
    return DM_OK;
}

static dm_status check(const dm_guide *guide, const dm_tensor *x, const dm_tensor *labels,
                       const dm_tensor *gradient) {
    const int32_t classes = guide->net->out_channels;
    const int64_t any[4] = {DMI_ANY, guide->net->in_channels, DMI_ANY, DMI_ANY};
    dm_status status;
    DM_TRY(dmi_tensor_check(x, "x", DM_DTYPE_F32, 4, any));
    DM_TRY(dmi_tensor_check_contiguous(gradient, "gradient", DM_DTYPE_F32, 4, x->shape));
    DM_TRY(dmi_tensor_check(labels, "labels", DM_DTYPE_I32, 1, x->shape));
    if (x->shape[0] < 1 || x->shape[0] > 1 << 20)
        return dmi_fail(DM_ERROR_SHAPE, "x: expected 1..%d images, got %lld", 1 << 20,
                        (long long)x->shape[0]);
    for (int64_t n = 0; n < x->shape[0]; n++) {
        const int32_t label = ((const int32_t *)labels->data)[n * labels->strides[0]];
        if (label < -1 || label >= classes)
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                            "labels[%lld]: expected -1..%d (the classifier's), got %d", (long long)n,
                            classes - 1, label);
    }
done:
    return status;
}

/* logits -> s times the derivative of log softmax(logits)[label], zeros for label -1 */
static void differentiate_log_softmax(float *logits, int64_t classes, int32_t label, double s) {
    double largest = -INFINITY, sum = 0;
    for (int64_t k = 0; k < classes; k++) largest = fmax(largest, (double)logits[k]);
    for (int64_t k = 0; k < classes; k++) sum += exp((double)logits[k] - largest);
    for (int64_t k = 0; k < classes; k++) {
        const double p = exp((double)logits[k] - largest) / sum;
        logits[k] = label < 0 ? 0.0f : (float)(s * ((k == label ? 1.0 : 0.0) - p));
    }
}

int32_t dm_guide_gradient(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels,
                          dm_tensor *gradient, void *user) {
    dm_guide *guide = user;
    dm_tensor logits;
    dm_status status;
    if (!guide) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "user: expected a guide, got NULL");
    DM_TRY(check(guide, x, labels, gradient));
    const int64_t rows = x->shape[0], classes = guide->net->out_channels;
    DM_TRY(prepare(guide, rows, x->shape[2], x->shape[3]));
    dmi_tensor_view(&logits, guide->logits, DM_DTYPE_F32, 2, (int64_t[]){rows, classes});
    DM_TRY(dm_session_forward(guide->session, x, t, NULL, &logits));
    for (int64_t row = 0; row < rows; row++)
        differentiate_log_softmax(guide->logits + row * classes, classes,
                                  ((const int32_t *)labels->data)[row * labels->strides[0]], guide->scale);
    status = dm_session_backward(guide->session, &logits, gradient);
done:
    return status;
}
