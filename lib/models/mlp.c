/* The lecture's denoiser: linear layers with an activation between them and another at the end. */
#include <stdio.h>
#include <string.h>

#include "graph/builder.h"
#include "kernels/activation.h"
#include "models/architecture.h"
#include "models/models.h"

static const int32_t lecture_dims[5] = {784, 400, 400, 400, 784};
static const dm_mlp_options default_options = {
    .num_dims = 5, .dims = lecture_dims, .hidden = DM_ACTIVATION_RELU, .final = DM_ACTIVATION_SIGMOID};

_Static_assert(DM_ACTIVATION_NONE == (int)DMI_ACT_NONE && DM_ACTIVATION_RELU == (int)DMI_ACT_RELU &&
                   DM_ACTIVATION_SIGMOID == (int)DMI_ACT_SIGMOID && DM_ACTIVATION_SILU == (int)DMI_ACT_SILU &&
                   DM_ACTIVATION_TANH == (int)DMI_ACT_TANH && DM_ACTIVATION_GELU == (int)DMI_ACT_GELU &&
                   DM_ACTIVATION_GELU_TANH == (int)DMI_ACT_GELU_TANH &&
                   DM_ACTIVATION_QUICK_GELU == (int)DMI_ACT_QUICK_GELU &&
                   DM_ACTIVATION_MISH == (int)DMI_ACT_MISH &&
                   DM_ACTIVATION_SOFTPLUS == (int)DMI_ACT_SOFTPLUS &&
                   DM_ACTIVATION_LEAKY_RELU == (int)DMI_ACT_LEAKY_RELU &&
                   DM_ACTIVATION_ELU == (int)DMI_ACT_ELU,
               "public and internal activations have the same numbers");

void dm_mlp_options_init(dm_mlp_options *options, uint32_t struct_size) {
    dmi_options_init(options, struct_size, &default_options, sizeof default_options);
}

static const struct {
    dm_activation value;
    const char *name;
} activation_names[] = {{DM_ACTIVATION_NONE, "none"},
                        {DM_ACTIVATION_RELU, "relu"},
                        {DM_ACTIVATION_SIGMOID, "sigmoid"},
                        {DM_ACTIVATION_SILU, "silu"},
                        {DM_ACTIVATION_TANH, "tanh"},
                        {DM_ACTIVATION_GELU, "gelu"},
                        {DM_ACTIVATION_GELU_TANH, "gelu_tanh"},
                        {DM_ACTIVATION_QUICK_GELU, "quick_gelu"},
                        {DM_ACTIVATION_MISH, "mish"},
                        {DM_ACTIVATION_SOFTPLUS, "softplus"},
                        {DM_ACTIVATION_LEAKY_RELU, "leaky_relu"},
                        {DM_ACTIVATION_ELU, "elu"},
                        {DM_ACTIVATION_SILU, "swish"}};
enum { NUM_ACTIVATIONS = sizeof activation_names / sizeof activation_names[0] };

const char *dm_activation_name(dm_activation value) {
    for (int i = 0; i < NUM_ACTIVATIONS; i++)
        if (activation_names[i].value == value) return activation_names[i].name;
    return NULL;
}

dm_activation dm_activation_from_name(const char *name) {
    for (int i = 0; name && i < NUM_ACTIVATIONS; i++)
        if (strcmp(activation_names[i].name, name) == 0) return activation_names[i].value;
    return 0;
}

static dm_status check(const dm_mlp_options *o) {
    if (o->num_dims < 2 || o->num_dims > DMI_LIST_MAX)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.num_dims: expected 2..%d, got %d", DMI_LIST_MAX,
                        o->num_dims);
    if (!o->dims)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.dims: expected [%d], got NULL", o->num_dims);
    for (int32_t i = 0; i < o->num_dims; i++)
        if (o->dims[i] < 1 || o->dims[i] > 65536)
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.dims[%d]: expected 1..65536, got %d", i,
                            o->dims[i]);
    if (o->hidden < DM_ACTIVATION_NONE || o->hidden > DMI_ACT_LAST)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.hidden: expected DM_ACTIVATION_*, got %d",
                        o->hidden);
    if (o->final < DM_ACTIVATION_NONE || o->final > DMI_ACT_LAST)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.final: expected DM_ACTIVATION_*, got %d",
                        o->final);
    return DM_OK;
}

/* A ReLU goes into the linear layer; the others are nodes of their own. */
static dmi_value layer(dmi_builder *b, dmi_value x, int32_t in, int32_t out, int32_t index,
                       dm_activation activation) {
    char name[32];
    snprintf(name, sizeof name, "net.%d", index);
    if (activation == DM_ACTIVATION_RELU) return dmi_build_linear(b, x, in, out, name, DMI_ACT_RELU);
    return dmi_build_activation(b, dmi_build_linear(b, x, in, out, name, DMI_ACT_NONE), activation);
}

static void describe(const dm_mlp_options *o, dmi_text *text) {
    dmi_text_start(text, "mlp");
    dmi_text_add_list(text, "dims", o->dims, o->num_dims);
    dmi_text_add_word(text, "hidden", dm_activation_name(o->hidden));
    dmi_text_add_word(text, "final", dm_activation_name(o->final));
}

dm_status dm_mlp_create(dm_context *context, const dm_mlp_options *options, dm_net **out) {
    dm_mlp_options o = default_options;
    dmi_builder builder;
    dmi_text text;
    dm_status status;
    if (!out) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a place for the network, got NULL");
    *out = NULL;
    if (options) DM_TRY(dmi_options_read(&o, sizeof o, options, "dm_mlp_options"));
    DM_TRY(check(&o));
    DM_TRY(dmi_builder_start(context, &builder));
    dmi_value x = dmi_build_input(&builder, o.dims[0], 0);
    for (int32_t i = 0; i + 1 < o.num_dims; i++)
        x = layer(&builder, x, o.dims[i], o.dims[i + 1], 2 * i, i + 2 < o.num_dims ? o.hidden : o.final);
    builder.net->out_channels = o.dims[o.num_dims - 1];
    describe(&o, &text);
    dmi_builder_describe(&builder, text.text);
    status = dmi_builder_finish(&builder, x, o.seed, out);
done:
    return status;
}

dm_status dmi_mlp_from_text(dm_context *context, const char *text, dm_net **out) {
    dm_mlp_options o = default_options;
    int32_t dims[DMI_LIST_MAX];
    char word[32];
    dm_status status;
    o.struct_size = sizeof o;
    o.dims = dims;
    DM_TRY(dmi_text_list(text, "dims", dims, &o.num_dims));
    DM_TRY(dmi_text_word(text, "hidden", word, sizeof word));
    o.hidden = dm_activation_from_name(word);
    DM_TRY(dmi_text_word(text, "final", word, sizeof word));
    o.final = dm_activation_from_name(word);
    status = dm_mlp_create(context, &o, out);
done:
    return status;
}
