#include <math.h>
#include <string.h>

#include "tensor/half.h"
#include "tensor/tensor.h"

/* A row: `count` elements, `step` elements apart. */
typedef void (*convert_row_fn)(const void *source, int64_t source_step, void *destination,
                               int64_t destination_step, int64_t count);

/* Nearest even, saturated; NaN becomes 0. `above` is the first whole number beyond the range, exact in
 * double. */
static int64_t round_saturated(double value, int64_t lowest, int64_t highest, double above) {
    if (isnan(value)) return 0;
    const double rounded = rint(value);
    if (rounded >= above) return highest;
    if (rounded < (double)lowest) return lowest;
    return (int64_t)rounded;
}

static int64_t clamp_integer(int64_t value, int64_t lowest, int64_t highest) {
    return value < lowest ? lowest : value > highest ? highest : value;
}

static float f32_from_real(double value) {
    return (float)value;
}
static double f64_from_real(double value) {
    return value;
}
static int32_t i32_from_real(double value) {
    return (int32_t)round_saturated(value, INT32_MIN, INT32_MAX, 0x1p31);
}
static int64_t i64_from_real(double value) {
    return round_saturated(value, INT64_MIN, INT64_MAX, 0x1p63);
}
static uint8_t u8_from_real(double value) {
    return (uint8_t)round_saturated(value, 0, UINT8_MAX, 0x1p8);
}

static uint16_t f16_from_real(double value) {
    return dmi_f16_from_float(dmi_float_to_odd(value));
}
static uint16_t bf16_from_real(double value) {
    return dmi_bf16_from_float(dmi_float_to_odd(value));
}

static float f32_from_whole(int64_t value) {
    return (float)value;
}
static double f64_from_whole(int64_t value) {
    return (double)value;
}
static int32_t i32_from_whole(int64_t value) {
    return (int32_t)clamp_integer(value, INT32_MIN, INT32_MAX);
}
static int64_t i64_from_whole(int64_t value) {
    return value;
}
static uint8_t u8_from_whole(int64_t value) {
    return (uint8_t)clamp_integer(value, 0, UINT8_MAX);
}
static uint16_t f16_from_whole(int64_t value) {
    return f16_from_real(dmi_double_to_odd(value));
}
static uint16_t bf16_from_whole(int64_t value) {
    return bf16_from_real(dmi_double_to_odd(value));
}

/* Every float fits a double and every integer an int64_t, so each pair converts exactly through `via`. */
#define SAME(value) value
#define DEFINE_ROW(to, to_type, from, from_type, load, via)                                                  \
    static void to##_row_##from(const void *source, int64_t source_step, void *destination,                  \
                                int64_t destination_step, int64_t count) {                                   \
        const from_type *in = source;                                                                        \
        to_type *out = destination;                                                                          \
        for (int64_t i = 0; i < count; i++) {                                                                \
            out[i * destination_step] = to##_from_##via(load(in[i * source_step]));                          \
        }                                                                                                    \
    }
#define DEFINE_ROWS_TO(to, to_type)                                                                          \
    DEFINE_ROW(to, to_type, f32, float, SAME, real)                                                          \
    DEFINE_ROW(to, to_type, f64, double, SAME, real)                                                         \
    DEFINE_ROW(to, to_type, i32, int32_t, SAME, whole)                                                       \
    DEFINE_ROW(to, to_type, i64, int64_t, SAME, whole)                                                       \
    DEFINE_ROW(to, to_type, u8, uint8_t, SAME, whole)                                                        \
    DEFINE_ROW(to, to_type, f16, uint16_t, dmi_float_from_f16, real)                                         \
    DEFINE_ROW(to, to_type, bf16, uint16_t, dmi_float_from_bf16, real)
#define ROWS_TO(to)                                                                                          \
    { to##_row_f32, to##_row_f64, to##_row_i32, to##_row_i64, to##_row_u8, to##_row_f16, to##_row_bf16 }

DEFINE_ROWS_TO(f32, float)
DEFINE_ROWS_TO(f64, double)
DEFINE_ROWS_TO(i32, int32_t)
DEFINE_ROWS_TO(i64, int64_t)
DEFINE_ROWS_TO(u8, uint8_t)
DEFINE_ROWS_TO(f16, uint16_t)
DEFINE_ROWS_TO(bf16, uint16_t)

enum { NUM_TYPES = DM_DTYPE_BF16 - DM_DTYPE_F32 + 1 };

static convert_row_fn convert_row(dm_dtype from, dm_dtype to) {
    static const convert_row_fn rows[NUM_TYPES][NUM_TYPES] = {
        ROWS_TO(f32), ROWS_TO(f64), ROWS_TO(i32), ROWS_TO(i64), ROWS_TO(u8), ROWS_TO(f16), ROWS_TO(bf16)};
    return rows[to - DM_DTYPE_F32][from - DM_DTYPE_F32];
}

/* Dense elements. Weights come and go as f16 and bf16, so these pairs have loops of their own. */
static void convert_dense(const void *source, dm_dtype from, void *destination, dm_dtype to, int64_t count) {
    if (from == to)
        memmove(destination, source, (size_t)(count * dm_dtype_size(from)));
    else if (from == DM_DTYPE_F16 && to == DM_DTYPE_F32)
        dmi_floats_from_f16(source, destination, count);
    else if (from == DM_DTYPE_BF16 && to == DM_DTYPE_F32)
        dmi_floats_from_bf16(source, destination, count);
    else if (from == DM_DTYPE_F32 && to == DM_DTYPE_F16)
        dmi_f16_from_floats(source, destination, count);
    else if (from == DM_DTYPE_F32 && to == DM_DTYPE_BF16)
        dmi_bf16_from_floats(source, destination, count);
    else
        convert_row(from, to)(source, 1, destination, 1, count);
}

/* Dimensions of a copy after those that are dense in both tensors were joined. */
typedef struct loop_nest {
    int32_t rank;
    int64_t shape[DM_TENSOR_MAX_RANK];
    int64_t from[DM_TENSOR_MAX_RANK];
    int64_t to[DM_TENSOR_MAX_RANK];
} loop_nest;

static void make_loops(loop_nest *loops, const dm_tensor *tensor, const int64_t *from, const int64_t *to) {
    loops->rank = 0;
    for (int32_t i = 0; i < tensor->rank; i++) {
        const int64_t size = tensor->shape[i];
        const int32_t outer = loops->rank - 1;
        if (size == 1) continue;
        if (outer >= 0 && loops->from[outer] == from[i] * size && loops->to[outer] == to[i] * size) {
            loops->shape[outer] *= size;
            loops->from[outer] = from[i];
            loops->to[outer] = to[i];
        } else {
            loops->shape[loops->rank] = size;
            loops->from[loops->rank] = from[i];
            loops->to[loops->rank] = to[i];
            loops->rank++;
        }
    }
    if (loops->rank == 0) {
        loops->rank = 1;
        loops->shape[0] = 1;
        loops->from[0] = loops->to[0] = 1;
    }
}

static void run_loops(const loop_nest *loops, const unsigned char *source, dm_dtype from,
                      unsigned char *destination, dm_dtype to) {
    const int64_t from_size = dm_dtype_size(from), to_size = dm_dtype_size(to);
    const int32_t inner = loops->rank - 1;
    const convert_row_fn convert = convert_row(from, to);
    const int dense = loops->from[inner] == 1 && loops->to[inner] == 1;
    int64_t at[DM_TENSOR_MAX_RANK] = {0};
    for (;;) {
        if (dense) {
            convert_dense(source, from, destination, to, loops->shape[inner]);
        } else {
            convert(source, loops->from[inner], destination, loops->to[inner], loops->shape[inner]);
        }
        int32_t dim = inner - 1;
        while (dim >= 0 && ++at[dim] == loops->shape[dim]) {
            source -= (loops->shape[dim] - 1) * loops->from[dim] * from_size;
            destination -= (loops->shape[dim] - 1) * loops->to[dim] * to_size;
            at[dim--] = 0;
        }
        if (dim < 0) return;
        source += loops->from[dim] * from_size;
        destination += loops->to[dim] * to_size;
    }
}

dm_status dm_tensor_copy(const dm_tensor *source, dm_tensor *destination) {
    dm_status status = DM_OK;
    loop_nest loops;
    DM_TRY(dmi_tensor_check(source, "source", 0, -1, NULL));
    DM_TRY(dmi_tensor_check_same_shape(destination, "destination", source));
    if (dm_tensor_numel(source) == 0) return DM_OK;
    make_loops(&loops, source, source->strides, destination->strides);
    run_loops(&loops, source->data, source->dtype, destination->data, destination->dtype);
done:
    return status;
}

dm_status dm_tensor_fill(dm_tensor *tensor, double value) {
    static const int64_t no_strides[DM_TENSOR_MAX_RANK] = {0};
    loop_nest loops;
    const dm_status status = dmi_tensor_check(tensor, "tensor", 0, -1, NULL);
    if (status != DM_OK || dm_tensor_numel(tensor) == 0) return status;
    _Alignas(8) unsigned char element[8];
    convert_row(DM_DTYPE_F64, tensor->dtype)(&value, 1, element, 1, 1);
    make_loops(&loops, tensor, no_strides, tensor->strides);
    run_loops(&loops, element, tensor->dtype, tensor->data, tensor->dtype);
    return DM_OK;
}

/* Offset in elements of the element with this row-major number. */
static int64_t offset_of(const dm_tensor *tensor, int64_t number) {
    int64_t offset = 0;
    for (int32_t i = tensor->rank - 1; i >= 0; i--) {
        offset += number % tensor->shape[i] * tensor->strides[i];
        number /= tensor->shape[i];
    }
    return offset;
}

void dmi_tensor_store(dm_tensor *tensor, int64_t first, int64_t count, const void *values, dm_dtype dtype) {
    const int64_t value_size = dm_dtype_size(dtype), element_size = dm_dtype_size(tensor->dtype);
    const convert_row_fn convert = convert_row(dtype, tensor->dtype);
    const int dense = dm_tensor_is_contiguous(tensor);
    const int64_t row = dense ? count : tensor->shape[tensor->rank - 1];
    const int64_t step = dense ? 1 : tensor->strides[tensor->rank - 1];
    const unsigned char *in = values;
    unsigned char *data = tensor->data;
    while (count > 0) {
        const int64_t left_in_row = dense ? count : row - first % row;
        const int64_t run = count < left_in_row ? count : left_in_row;
        convert(in, 1, data + (dense ? first : offset_of(tensor, first)) * element_size, step, run);
        in += run * value_size;
        first += run;
        count -= run;
    }
}
