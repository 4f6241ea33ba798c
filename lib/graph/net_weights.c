#include "graph/net_weights.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { NAME_SIZE = 512, LIST_SIZE = 280 };

/* "missing: a, b, c and 12 more" */
typedef struct name_list {
    char text[LIST_SIZE];
    size_t used;
    int32_t listed, count;
} name_list;

static void list_add(name_list *list, const char *format, ...) DMI_PRINTF(2, 3);

static void list_add(name_list *list, const char *format, ...) {
    va_list args;
    const size_t room = sizeof list->text - list->used;
    list->count++;
    if (list->listed + 1 < list->count) return; /* a shorter name after one without room would mislead */
    va_start(args, format);
    const int length = vsnprintf(list->text + list->used, room, format, args);
    va_end(args);
    if (length >= 0 && (size_t)length + 2 < room) {
        memcpy(list->text + list->used + length, ", ", 3);
        list->used += (size_t)length + 2;
        list->listed++;
    }
    list->text[list->used] = '\0';
}

/* "; 14 missing: a, b and 12 more" to the end of `message`. */
static void list_print(name_list *list, const char *what, char *message, size_t size) {
    char rest[32] = "";
    const size_t used = strlen(message);
    if (list->count == 0) return;
    if (list->used > 0) list->text[list->used - 2] = '\0';
    if (list->count > list->listed) snprintf(rest, sizeof rest, " and %d more", list->count - list->listed);
    snprintf(message + used, size - used, "%s%d %s: %s%s", used > 0 ? "; " : "", list->count, what,
             list->text, rest);
}

typedef struct match {
    const dm_net *net;
    const dmi_weights *weights;
    const dmi_weight_names *names;
    int32_t *tensor_of; /* [num_params] tensor that is its value, -1: none */
    char *is_param;     /* [count of weights] */
    name_list missing, extra, shapes, types;
} match;

/* -1: none. */
static int32_t find_tensor(const match *m, const char *param) {
    char name[NAME_SIZE];
    const char *prefix = m->names->prefix != NULL ? m->names->prefix : "";
    if ((size_t)snprintf(name, sizeof name, "%s%s", prefix, param) >= sizeof name) return -1;
    return dmi_weights_find(m->weights, name);
}

/* Tensor under the second name of that parameter, -1: none. */
static int32_t find_second(const match *m, const char *param) {
    char alias[NAME_SIZE];
    const int has_second = m->names->alias != NULL && m->names->alias(param, alias, sizeof alias);
    return has_second ? find_tensor(m, alias) : -1;
}

static void check_layout(match *m, const dmi_param *param, int32_t index) {
    char want[96], got[96];
    const char *name = dmi_weights_name(m->weights, index);
    const dm_tensor *tensor = dmi_weights_layout(m->weights, index);
    dmi_tensor_describe(&param->view, want, sizeof want);
    if (tensor == NULL) {
        list_add(&m->types, "%s", dm_last_error());
        return;
    }
    dmi_tensor_describe(tensor, got, sizeof got);
    if (tensor->dtype != DM_DTYPE_F32 && tensor->dtype != DM_DTYPE_F64)
        list_add(&m->types, "%s: expected %s, got %s", name, want, got);
    else if (tensor->rank != param->view.rank ||
             memcmp(tensor->shape, param->view.shape, (size_t)tensor->rank * sizeof *tensor->shape) != 0)
        list_add(&m->shapes, "%s: expected %s, got %s", name, want, got);
}

static int is_ignored(const dmi_weight_names *names, const char *name) {
    for (int32_t i = 0; i < names->num_ignored; i++)
        if (strncmp(name, names->ignored[i], strlen(names->ignored[i])) == 0) return 1;
    return 0;
}

static void match_params(match *m) {
    for (int32_t i = 0; i < m->net->num_params; i++) {
        const dmi_param *param = &m->net->params[i];
        int32_t found = find_tensor(m, param->name);
        if (found < 0) found = find_second(m, param->name);
        m->tensor_of[i] = found;
        if (found < 0) {
            list_add(&m->missing, "%s", param->name);
        } else {
            m->is_param[found] = 1;
            check_layout(m, param, found);
        }
    }
}

static int has_shape(const match *m, int32_t index, const dm_tensor *like) {
    const dm_tensor *layout = dmi_weights_layout(m->weights, index);
    return layout != NULL && layout->rank == like->rank &&
           memcmp(layout->shape, like->shape, (size_t)like->rank * sizeof *like->shape) == 0;
}

/* Whether two tensors have the parameter's shape and the same numbers. */
static dm_status compare(const match *m, const dmi_param *param, const int32_t *indices, char *same) {
    const dm_tensor *like = &param->view;
    const size_t count = (size_t)param->numel;
    *same = 0;
    if (!has_shape(m, indices[0], like) || !has_shape(m, indices[1], like)) return DM_OK;
    float *numbers = dmi_alloc_array(m->net->context, 2 * count, sizeof *numbers);
    if (numbers == NULL) return DM_ERROR_OUT_OF_MEMORY;
    dm_status status = DM_OK;
    for (int i = 0; i < 2 && status == DM_OK; i++) {
        dm_tensor view;
        dmi_tensor_view(&view, numbers + (size_t)i * count, DM_DTYPE_F32, like->rank, like->shape);
        status = dmi_weights_read(m->weights, indices[i], &view);
    }
    *same = status == DM_OK && memcmp(numbers, numbers + count, count * sizeof *numbers) == 0;
    dmi_free(m->net->context, numbers);
    return status;
}

/* A parameter that a module shares is in its state_dict once under each name. */
static dm_status match_second_names(match *m) {
    for (int32_t i = 0; i < m->net->num_params; i++) {
        const dmi_param *param = &m->net->params[i];
        const int32_t both[] = {m->tensor_of[i], find_second(m, param->name)};
        if (both[0] < 0 || both[1] < 0 || both[0] == both[1]) continue;
        const dm_status status = compare(m, param, both, &m->is_param[both[1]]);
        if (status != DM_OK) return status;
    }
    return DM_OK;
}

static dm_status match_names(match *m) {
    match_params(m);
    const dm_status status = match_second_names(m);
    for (int32_t i = 0; i < dmi_weights_count(m->weights); i++) {
        const char *name = dmi_weights_name(m->weights, i);
        if (!m->is_param[i] && !is_ignored(m->names, name)) list_add(&m->extra, "%s", name);
    }
    return status;
}

static dm_status report(match *m, const char *source) {
    char message[900] = "";
    list_print(&m->missing, "missing", message, sizeof message);
    list_print(&m->extra, "not of this network", message, sizeof message);
    list_print(&m->shapes, "of another shape", message, sizeof message);
    list_print(&m->types, "of another type", message, sizeof message);
    if (message[0] == '\0') return DM_OK;
    const dm_status status = m->missing.count + m->extra.count > 0 ? DM_ERROR_FORMAT
                             : m->shapes.count > 0                 ? DM_ERROR_SHAPE
                                                                   : DM_ERROR_DTYPE;
    return dmi_fail(status, "%.200s: tensors: %s", source, message);
}

/* Its shape and type have been checked: it cannot fail. */
static void read_param(void *arg, int64_t index, int32_t worker) {
    match *m = arg;
    (void)worker;
    dmi_weights_read(m->weights, m->tensor_of[index], &m->net->params[index].view);
}

dm_status dmi_net_read_weights(dm_net *net, const dmi_weights *weights, const char *source,
                               const dmi_weight_names *names) {
    static const dmi_weight_names same = {0};
    dm_status status = DM_OK;
    match m = {.net = net, .weights = weights, .names = names != NULL ? names : &same};
    m.tensor_of = dmi_alloc_array(net->context, (size_t)net->num_params, sizeof *m.tensor_of);
    m.is_param = dmi_calloc(net->context, (size_t)dmi_weights_count(weights));
    if (m.tensor_of == NULL || m.is_param == NULL) {
        status = DM_ERROR_OUT_OF_MEMORY;
        goto done;
    }
    DM_TRY(match_names(&m));
    DM_TRY(report(&m, source));
    dmi_parallel(net->context, net->num_params, read_param, &m);
    dmi_net_touch(net);
done:
    dmi_free(net->context, m.tensor_of);
    dmi_free(net->context, m.is_param);
    return status;
}
