/* dm_sampler over a dm_net: the denoise function is a session's forward, made for the shape of the first run.
 */
#include "diffusion/process.h"
#include "diffusion/sampler.h"
#include "graph/session.h"
#include "samplers/sampler.h"

typedef struct net_denoiser {
    const dm_net *net;
    dm_session *session; /* NULL before the first run */
    dm_dtype storage;
    int has_guide;
    int64_t batch, height, width;
    int32_t halves; /* of the output's channels: 2 with a learned variance */
} net_denoiser;

/* A network that takes no classes leaves them to the guide. */
static const dm_tensor *labels_of(const net_denoiser *d, const dm_tensor *labels) {
    const int takes = d->net->label_width > 0 ? dmi_labels_are_vectors(labels) : d->net->num_classes > 0;
    return d->has_guide && !takes ? NULL : labels;
}

static dm_status prepare(void *user, const dm_tensor *labels, int64_t batch, int64_t channels, int64_t height,
                         int64_t width) {
    net_denoiser *d = user;
    const dm_tensor *seen = labels_of(d, labels);
    dm_session *session = NULL;
    dm_session_options options;
    if (channels != d->net->in_channels || channels * d->halves != d->net->out_channels ||
        d->net->out_is_vector)
        return dmi_fail(DM_ERROR_SHAPE, "out: expected %d channels (the network's), got %lld",
                        d->net->in_channels, (long long)channels);
    if ((height == 0) == d->net->is_image)
        return dmi_fail(DM_ERROR_SHAPE, "out: expected %s, the network's input",
                        d->net->is_image ? "[N,C,H,W]" : "[N,D]");
    if (batch > INT32_MAX)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected at most %d images a network call, got %lld",
                        INT32_MAX, (long long)batch);
    dm_status status = dmi_net_check_labels(d->net, seen, seen ? seen->shape[0] : 0);
    if (status) return status;
    if (d->session && batch <= d->batch && height == d->height && width == d->width) return DM_OK;
    dm_session_options_init(&options, sizeof options);
    options.mode = DM_SESSION_INFER;
    options.batch = (int32_t)batch;
    options.height = (int32_t)height;
    options.width = (int32_t)width;
    options.storage_dtype = d->storage;
    status = dm_session_create(d->net, &options, &session);
    if (status) return status;
    dm_session_destroy(d->session);
    d->session = session;
    d->batch = batch;
    d->height = height;
    d->width = width;
    return DM_OK;
}

static int32_t denoise(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels, dm_tensor *out,
                       void *user) {
    const net_denoiser *d = user;
    return dm_session_forward(d->session, x, t, labels_of(d, labels), out);
}

static void destroy(void *user) {
    net_denoiser *d = user;
    dm_session_destroy(d->session);
    dmi_free(d->net->context, d);
}

dm_status dm_sampler_create_net(dm_context *context, const dm_scheduler *scheduler, const dm_net *net,
                                const dm_sampler_options *options, dm_sampler **out) {
    if (!out) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a place for the sampler, got NULL");
    *out = NULL;
    if (!net) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "net: expected a network, got NULL");
    dm_sampler_options checked;
    dm_sampler_options_init(&checked, sizeof checked);
    if (options) {
        dm_status status = dmi_options_read(&checked, sizeof checked, options, "dm_sampler_options");
        if (status) return status;
    }
    if (checked.guidance_scale != 1.0 && net->label_node < 0)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.guidance_scale: expected 1 for a network without classes, got %g",
                        checked.guidance_scale);
    dm_status status = dmi_check_storage(DM_DTYPE_F32, checked.storage_dtype);
    if (status) return status;
    net_denoiser *d = dmi_calloc(net->context, sizeof *d);
    if (!d) return dm_last_status();
    d->net = net;
    d->storage = checked.storage_dtype;
    checked.storage_dtype = 0;
    d->has_guide = checked.guide != NULL;
    d->halves = scheduler && dmi_variance_is_learned(scheduler->options.variance_type) ? 2 : 1;
    status = dm_sampler_create(context, scheduler, denoise, d, &checked, out);
    if (status) {
        destroy(d);
        return status;
    }
    dmi_sampler_attach(*out, &(dmi_sampler_hooks){.prepare = prepare, .destroy = destroy});
    return DM_OK;
}
