#include <float.h>
#include <math.h>

#include "random/random.h"

#define CHUNK          256   /* values that pass through a buffer on the stack */
#define PARALLEL_BLOCK 16384 /* normals a block of parallel work, a multiple of 4 */

dm_status dm_rng_create(dm_context *context, uint64_t seed, uint64_t stream, dm_rng **out) {
    if (out == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    dm_rng *rng = dmi_alloc(context, sizeof *rng);
    if (rng == NULL) return dm_last_status();
    *rng = (dm_rng){.context = dmi_context(context), .state = {.seed = seed, .stream = stream, .index = 0}};
    *out = rng;
    return DM_OK;
}

void dm_rng_destroy(dm_rng *rng) {
    if (rng != NULL) dmi_free(rng->context, rng);
}

static dm_status check_pointer(const void *pointer, const char *name) {
    if (pointer != NULL) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "%s: expected a pointer, got NULL", name);
}

dm_status dm_rng_get_state(const dm_rng *rng, dm_rng_state *state) {
    dm_status status = DM_OK;
    DM_TRY(check_pointer(rng, "rng"));
    DM_TRY(check_pointer(state, "state"));
    *state = rng->state;
done:
    return status;
}

dm_status dm_rng_set_state(dm_rng *rng, const dm_rng_state *state) {
    dm_status status = DM_OK;
    DM_TRY(check_pointer(rng, "rng"));
    DM_TRY(check_pointer(state, "state"));
    rng->state = *state;
done:
    return status;
}

/* rng and out are there, and out is of one of two types. */
static dm_status check_output(const dm_rng *rng, const dm_tensor *out, dm_dtype first, dm_dtype second) {
    dm_status status = DM_OK;
    DM_TRY(check_pointer(rng, "rng"));
    DM_TRY(dmi_tensor_check(out, "out", 0, -1, NULL));
    if (out->dtype != first && out->dtype != second) {
        status = dmi_fail(DM_ERROR_DTYPE, "out: expected %s or %s, got %s", dm_dtype_name(first),
                          dm_dtype_name(second), dm_dtype_name(out->dtype));
    }
done:
    return status;
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

typedef struct normal_work {
    dm_rng_state start; /* index is a multiple of 4 */
    dm_tensor *out;
    int64_t count;
} normal_work;

/* Elements [block, block + 1) * PARALLEL_BLOCK. */
static void normal_block(void *arg, int64_t block, int32_t worker) {
    const normal_work *work = arg;
    const int64_t first = block * PARALLEL_BLOCK;
    const int64_t end = smaller(first + PARALLEL_BLOCK, work->count);
    const dm_rng_state *start = &work->start;
    (void)worker;
    if (work->out->dtype == DM_DTYPE_F32 && dm_tensor_is_contiguous(work->out)) {
        dmi_normal_fill(start->seed, start->stream, start->index + (uint64_t)first, end - first,
                        (float *)work->out->data + first);
        return;
    }
    for (int64_t at = first; at < end; at += CHUNK) {
        float values[CHUNK];
        const int64_t run = smaller(CHUNK, end - at);
        dmi_normal_fill(start->seed, start->stream, start->index + (uint64_t)at, run, values);
        dmi_tensor_store(work->out, at, run, values, DM_DTYPE_F32);
    }
}

dm_status dm_rng_normal(dm_rng *rng, dm_tensor *out) {
    const dm_status status = check_output(rng, out, DM_DTYPE_F32, DM_DTYPE_F64);
    if (status != DM_OK) return status;
    normal_work work = {.start = rng->state, .out = out, .count = dm_tensor_numel(out)};
    if (work.count == 0) return DM_OK;
    const int64_t blocks = (work.count - 1) / PARALLEL_BLOCK + 1;
    work.start.index = (work.start.index + 3) & ~UINT64_C(3);
    if (dm_tensor_is_contiguous(out)) {
        dmi_parallel(rng->context, blocks, normal_block, &work);
    } else { /* elements may share memory, so their order matters */
        for (int64_t block = 0; block < blocks; block++) normal_block(&work, block, 0);
    }
    rng->state.index = work.start.index + (((uint64_t)work.count + 3) & ~UINT64_C(3));
    return DM_OK;
}

dm_status dm_rng_uniform(dm_rng *rng, double low, double high, dm_tensor *out) {
    const dm_status status = check_output(rng, out, DM_DTYPE_F32, DM_DTYPE_F64);
    if (status != DM_OK) return status;
    const double limit = out->dtype == DM_DTYPE_F32 ? FLT_MAX : DBL_MAX;
    if (!(low >= -limit && high <= limit && low <= high) || !isfinite(high - low)) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "low, high: expected finite numbers of type %s, low <= high, got %g, %g",
                        dm_dtype_name(out->dtype), low, high);
    }
    const int64_t count = dm_tensor_numel(out);
    for (int64_t at = 0; at < count; at += CHUNK) {
        double values[CHUNK];
        const int64_t run = smaller(CHUNK, count - at);
        dmi_uniform_fill(rng->state.seed, rng->state.stream, rng->state.index + (uint64_t)at, low, high, run,
                         values);
        dmi_tensor_store(out, at, run, values, DM_DTYPE_F64);
    }
    rng->state.index += (uint64_t)count;
    return DM_OK;
}

dm_status dm_rng_integers(dm_rng *rng, int64_t low, int64_t high, dm_tensor *out) {
    const dm_status status = check_output(rng, out, DM_DTYPE_I32, DM_DTYPE_I64);
    if (status != DM_OK) return status;
    const uint64_t range = (uint64_t)high - (uint64_t)low;
    if (low >= high || range > UINT64_C(1) << 32) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "low, high: expected low < high <= low + 2^32, got %lld, %lld", (long long)low,
                        (long long)high);
    }
    if (out->dtype == DM_DTYPE_I32 && (low < INT32_MIN || high - 1 > INT32_MAX)) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "low, high: expected integers that fit i32, got %lld, %lld", (long long)low,
                        (long long)high);
    }
    const int64_t count = dm_tensor_numel(out);
    for (int64_t at = 0; at < count; at += CHUNK) {
        int64_t values[CHUNK];
        const int64_t run = smaller(CHUNK, count - at);
        for (int64_t i = 0; i < run; i++) {
            const uint64_t index = rng->state.index + 2 * (uint64_t)(at + i);
            values[i] = low + dmi_random_below(rng->state.seed, rng->state.stream, index, range);
        }
        dmi_tensor_store(out, at, run, values, DM_DTYPE_I64);
    }
    rng->state.index += 2 * (uint64_t)count;
    return DM_OK;
}

/* Fisher and Yates: element i swaps with one of 0..i, i = n-1 down to 1. */
#define DEFINE_SHUFFLE(name, type)                                                                           \
    static void name(const dm_rng_state *start, int64_t count, type *order) {                                \
        uint64_t index = start->index;                                                                       \
        for (int64_t i = 0; i < count; i++) order[i] = (type)i;                                              \
        for (int64_t i = count - 1; i > 0; i--, index += 2) {                                                \
            const int64_t other = dmi_random_below(start->seed, start->stream, index, (uint64_t)i + 1);      \
            const type kept = order[i];                                                                      \
            order[i] = order[other];                                                                         \
            order[other] = kept;                                                                             \
        }                                                                                                    \
    }

DEFINE_SHUFFLE(shuffle_i32, int32_t)
DEFINE_SHUFFLE(shuffle_i64, int64_t)

dm_status dm_rng_permutation(dm_rng *rng, dm_tensor *out) {
    static const int64_t any_size[] = {DMI_ANY};
    dm_status status = DM_OK;
    DM_TRY(check_output(rng, out, DM_DTYPE_I32, DM_DTYPE_I64));
    DM_TRY(dmi_tensor_check_contiguous(out, "out", 0, 1, any_size));
    const int64_t count = out->shape[0];
    if (count > INT32_MAX) {
        return dmi_fail(DM_ERROR_SHAPE, "out: expected fewer than 2^31 elements, got %lld", (long long)count);
    }
    if (out->dtype == DM_DTYPE_I32) {
        shuffle_i32(&rng->state, count, out->data);
    } else {
        shuffle_i64(&rng->state, count, out->data);
    }
    if (count > 1) rng->state.index += 2 * (uint64_t)(count - 1);
done:
    return status;
}
