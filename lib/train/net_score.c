/* The score of a dm_net: a session's forward on blocks of paths, made for the largest block so far. */
#include <math.h>

#include "diffusion/net.h"
#include "graph/session.h"
#include "sde/score.h"

typedef struct net_score {
    const dm_net *net;
    dm_session *session; /* NULL before the first call */
    int64_t batch;
    dmi_score_process process;
    dm_sde_net_options options;
    int64_t d;
    double *rows;         /* [batch][d] to the network, [batch][d] from it, t [batch] */
    double *label_vector; /* [net->label_width], NULL: none; that of the options is the caller's */
} net_score;

void dm_sde_net_options_init(dm_sde_net_options *options, uint32_t struct_size) {
    const dm_sde_net_options defaults = {.prediction = DM_PREDICTION_EPSILON, .label = -1, .time_scale = 999};
    dmi_options_init(options, struct_size, &defaults, sizeof defaults);
}

static dm_status reserve(net_score *s, int64_t n) {
    dm_session_options options;
    dm_session *session = NULL;
    double *rows = NULL;
    dm_status status = DM_OK;
    if (n <= s->batch) return DM_OK;
    if (n > INT32_MAX)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "score: expected at most %d paths a block", INT32_MAX);
    dm_session_options_init(&options, sizeof options);
    options.mode = DM_SESSION_INFER;
    options.batch = (int32_t)n;
    options.height = (int32_t)s->options.height;
    options.width = (int32_t)s->options.width;
    options.storage_dtype = s->options.storage_dtype;
    DM_TRY(dm_session_create(s->net, &options, &session));
    rows = dmi_alloc_array(s->net->context, (size_t)n * (2 * (size_t)s->d + 1), sizeof *rows);
    if (rows == NULL) DM_TRY(DM_ERROR_OUT_OF_MEMORY);
    dm_session_destroy(s->session);
    dmi_free(s->net->context, s->rows);
    s->session = session;
    s->batch = n;
    s->rows = rows;
    return DM_OK;
done:
    dm_session_destroy(session);
    return status;
}

/* score = on_x x + on_out out */
static void weights(const net_score *s, double t, double *on_x, double *on_out) {
    const double m = dmi_score_mean_scale(&s->process, t), std = dmi_score_std(&s->process, t);
    *on_x = 0;
    *on_out = -1 / std;
    if (s->options.prediction == DM_PREDICTION_X0) {
        *on_x = -1 / (std * std);
        *on_out = m / (std * std);
    } else if (s->options.prediction == DM_PREDICTION_V) { /* eps = s x + m v when m^2 + s^2 = 1 */
        *on_x = -1;
        *on_out = -m / std;
    }
}

/* The label of n paths, all of them in one place; NULL: none. */
static const dm_tensor *label_of(net_score *s, int64_t n, dm_tensor *view) {
    const int64_t shape[2] = {n, s->net->label_width};
    if (s->label_vector == NULL && s->options.label < 0) return NULL;
    if (s->label_vector != NULL)
        dmi_tensor_view(view, s->label_vector, DM_DTYPE_F64, 2, shape);
    else
        dmi_tensor_view(view, &s->options.label, DM_DTYPE_I32, 1, shape);
    view->strides[0] = 0;
    return view;
}

static dm_status forward(net_score *s, double t, int64_t n) {
    const int is_image = s->net->is_image;
    const int64_t shape[4] = {n, is_image ? s->net->in_channels : s->d, s->options.height, s->options.width};
    dm_tensor x, times, labels, out;
    double *to = s->rows, *from = to + s->batch * s->d, *clock = from + s->batch * s->d;
    for (int64_t p = 0; p < n; p++)
        clock[p] = s->options.time_scale > 0 ? s->options.time_scale * t : dmi_score_std(&s->process, t);
    dmi_tensor_view(&x, to, DM_DTYPE_F64, is_image ? 4 : 2, shape);
    dmi_tensor_view(&out, from, DM_DTYPE_F64, is_image ? 4 : 2, shape);
    dmi_tensor_view(&times, clock, DM_DTYPE_F64, 1, shape);
    return dm_session_forward(s->session, &x, &times, label_of(s, n, &labels), &out);
}

static int32_t score(double t, int64_t n, const double *x, double *out, void *user) {
    net_score *s = user;
    double on_x, on_out;
    dm_status status = reserve(s, n);
    if (status != DM_OK) return status;
    for (int64_t p = 0; p < n; p++)
        for (int64_t i = 0; i < s->d; i++) s->rows[p * s->d + i] = x[i * n + p];
    status = forward(s, t, n);
    if (status != DM_OK) return status;
    weights(s, t, &on_x, &on_out);
    const double *from = s->rows + s->batch * s->d;
    for (int64_t p = 0; p < n; p++)
        for (int64_t i = 0; i < s->d; i++) out[i * n + p] = on_x * x[i * n + p] + on_out * from[p * s->d + i];
    return 0;
}

static void destroy(void *user) {
    net_score *s = user;
    dm_session_destroy(s->session);
    dmi_free(s->net->context, s->rows);
    dmi_free(s->net->context, s->label_vector);
    dmi_free(s->net->context, s);
}

static dm_status check_label(const dm_net *net, const dm_sde_net_options *options) {
    const dm_tensor *vector = options->label_vector;
    const int64_t width = net->label_width;
    if (options->label < -1 || options->label >= (net->num_classes > 0 ? net->num_classes : 0))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "label: expected -1..%d, got %d",
                        net->num_classes > 0 ? (int)net->num_classes - 1 : -1, (int)options->label);
    if (vector == NULL) return DM_OK;
    if (width == 0)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "label_vector: expected NULL, the network takes no vectors as labels");
    return dmi_tensor_check(vector, "label_vector",
                            vector->dtype == DM_DTYPE_F64 ? DM_DTYPE_F64 : DM_DTYPE_F32, 1, &width);
}

static dm_status take_label_vector(net_score *s) {
    const dm_tensor *vector = s->options.label_vector;
    dm_tensor own;
    s->options.label_vector = NULL;
    if (vector == NULL) return DM_OK;
    s->label_vector = dmi_alloc_array(s->net->context, (size_t)s->net->label_width, sizeof(double));
    if (s->label_vector == NULL) return DM_ERROR_OUT_OF_MEMORY;
    dmi_tensor_view(&own, s->label_vector, DM_DTYPE_F64, 1, vector->shape);
    return dm_tensor_copy(vector, &own);
}

static dm_status check_options(const dm_net *net, const dm_sde *sde, const dm_sde_net_options *options) {
    const dm_prediction_type prediction = options->prediction;
    if (prediction < DM_PREDICTION_EPSILON || prediction > DM_PREDICTION_V)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "prediction: expected a DM_PREDICTION_* value, got %d",
                        (int)prediction);
    if (prediction == DM_PREDICTION_V && sde->score.type != DMI_SCORE_VP)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "prediction: expected eps or x0 but for the VP process");
    if (!(options->time_scale >= 0) || !isfinite(options->time_scale))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "time_scale: expected a finite number >= 0, got %g",
                        options->time_scale);
    dm_status status = dmi_check_storage(DM_DTYPE_F32, options->storage_dtype);
    if (status) return status;
    status = check_label(net, options);
    if (status) return status;
    const int64_t height = options->height, width = options->width;
    const int64_t pixels = net->is_image ? height * width : 1;
    if (height < 0 || width < 0 || height > 65536 || width > 65536 || (!net->is_image && height + width > 0))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "height, width: expected %s, got %lld and %lld",
                        net->is_image ? "1..65536" : "0 for a network on vectors", (long long)height,
                        (long long)width);
    if (net->in_channels != net->out_channels || net->in_channels * pixels != sde->dim)
        return dmi_fail(DM_ERROR_SHAPE, "net: expected %d numbers in and out, got %lld and %lld",
                        (int)sde->dim, (long long)(net->in_channels * pixels),
                        (long long)(net->out_channels * pixels));
    return DM_OK;
}

dm_status dm_sde_create_reverse_net(dm_context *context, const dm_sde *forward_sde, const dm_net *net,
                                    const dm_sde_net_options *options, dm_sde **out) {
    dm_status status = DM_OK;
    dm_sde_net_options read;
    dm_sde_reverse_options reverse;
    net_score *s = NULL;
    if (!out) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    if (!net) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "net: expected a network, got NULL");
    dm_sde_net_options_init(&read, sizeof read);
    dm_sde_reverse_options_init(&reverse, sizeof reverse);
    DM_TRY(dmi_score_check(forward_sde, "forward"));
    if (options) DM_TRY(dmi_options_read(&read, sizeof read, options, "dm_sde_net_options"));
    DM_TRY(check_options(net, forward_sde, &read));
    s = dmi_calloc(net->context, sizeof *s);
    if (!s) return DM_ERROR_OUT_OF_MEMORY;
    s->net = net;
    s->process = forward_sde->score;
    s->options = read;
    s->d = forward_sde->dim;
    DM_TRY(take_label_vector(s));
    reverse.probability_flow = read.probability_flow;
    DM_TRY(dmi_score_create_reverse(context, forward_sde, score, s, destroy, &reverse, out));
    s = NULL;
done:
    if (s) destroy(s);
    return status;
}
