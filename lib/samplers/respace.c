/* guided-diffusion's way to name a run: how many timesteps to take from equal parts of the process (Nichol
 * and Dhariwal 2021, section 4), or "ddimN": N at an equal integer stride. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "samplers/grid.h"

static dm_status bad_sections(const char *text, const char *why) {
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                    "sections: expected \"250\", \"10,15,20\" or \"ddim50\", got \"%.60s\"%s", text, why);
}

/* Numbers from 1 up, with commas; the count, at most `most`, or -1. */
static int32_t read_counts(const char *text, int32_t most, int32_t *counts) {
    int32_t n = 0;
    for (;;) {
        char *end;
        if (*text < '0' || *text > '9' || n == most) return -1;
        const long value = strtol(text, &end, 10);
        if (value < 1 || value > 1000000) return -1;
        counts[n++] = (int32_t)value;
        if (*end == '\0') return n;
        if (*end != ',') return -1;
        text = end + 1;
    }
}

/* Marks 0, s, 2s, ... with the smallest stride s that gives exactly `count`. */
static int mark_stride(int32_t num_train, int32_t count, char *marks) {
    for (int32_t stride = 1; stride <= num_train; stride++) {
        if ((num_train + stride - 1) / stride != count) continue;
        for (int32_t t = 0; t < num_train; t += stride) marks[t] = 1;
        return 1;
    }
    return 0;
}

static int mark_sections(int32_t num_train, const int32_t *counts, int32_t sections, char *marks) {
    const int32_t each = num_train / sections, extra = num_train % sections;
    int32_t start = 0;
    for (int32_t i = 0; i < sections; i++) {
        const int32_t size = each + (i < extra);
        if (size < counts[i]) return 0;
        const double stride = counts[i] > 1 ? (double)(size - 1) / (counts[i] - 1) : 1.0;
        double at = 0.0; /* summed, as there: the rounding decides */
        for (int32_t k = 0; k < counts[i]; k++, at += stride) marks[start + (int32_t)rint(at)] = 1;
        start += size;
    }
    return 1;
}

static dm_status set_marked(dm_scheduler *scheduler, const char *marks) {
    const int32_t num_train = scheduler->options.num_train_timesteps;
    int64_t count = 0;
    int32_t *list = dmi_alloc_array(scheduler->context, (size_t)num_train, sizeof(int32_t));
    dm_tensor timesteps;
    if (!list) return DM_ERROR_OUT_OF_MEMORY;
    for (int32_t t = num_train - 1; t >= 0; t--)
        if (marks[t]) list[count++] = t;
    dmi_tensor_view(&timesteps, list, DM_DTYPE_I32, 1, &count);
    const dm_status status = dm_scheduler_set_custom_timesteps(scheduler, &timesteps);
    dmi_free(scheduler->context, list);
    return status;
}

dm_status dm_scheduler_set_respacing(dm_scheduler *scheduler, const char *sections) {
    enum { MAX_SECTIONS = 64 };
    int32_t counts[MAX_SECTIONS];
    dm_status status = DM_OK;
    if (!scheduler) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected a handle, got NULL");
    if (!sections) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "sections: expected a text, got NULL");
    const int32_t num_train = scheduler->options.num_train_timesteps;
    const int is_stride = strncmp(sections, "ddim", 4) == 0;
    const int32_t n = read_counts(sections + (is_stride ? 4 : 0), is_stride ? 1 : MAX_SECTIONS, counts);
    if (n < 0 || n > num_train) return bad_sections(sections, "");
    char *marks = dmi_calloc(scheduler->context, (size_t)num_train);
    if (!marks) return DM_ERROR_OUT_OF_MEMORY;
    if (!(is_stride ? mark_stride(num_train, counts[0], marks) : mark_sections(num_train, counts, n, marks)))
        status = bad_sections(sections, is_stride ? ": no integer stride gives so many"
                                                  : ": a section has fewer timesteps than that");
    if (status == DM_OK) status = set_marked(scheduler, marks);
    dmi_free(scheduler->context, marks);
    return status;
}
