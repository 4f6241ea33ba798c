/* Schedules, options, names, timesteps and memory of dm_scheduler. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "unit/scheduler_support.h"

/* ---- schedules ---- */

static void test_lecture_values(void **state) {
    (void)state;
    dm_scheduler *scheduler = make(NULL);
    double *betas = read_doubles(scheduler, dm_scheduler_betas);
    double *alpha_bars = read_doubles(scheduler, dm_scheduler_alpha_bars);
    assert_near(betas[0], 4.1284e-05, 5e-10);
    assert_near(betas[10], 8.9871e-05, 5e-10);
    assert_near(betas[20], 1.3850e-04, 5e-9);
    assert_near(betas[900], 1.9742e-02, 5e-7);
    for (int t = 910; t < 1000; t += 10) assert_true(betas[t] == 0.02);
    double product = 1;
    for (int t = 0; t < 1000; t++) {
        product *= 1 - betas[t];
        assert_true(alpha_bars[t] == product);
        if (t > 0) assert_true(betas[t] >= betas[t - 1]);
    }
    free(betas);
    free(alpha_bars);
    dm_scheduler_destroy(scheduler);
}

static void expect_betas(const dm_scheduler_options *options, double first, double middle, double last) {
    dm_scheduler *scheduler = make(options);
    double *betas = read_doubles(scheduler, dm_scheduler_betas);
    const int32_t count = options->num_train_timesteps;
    assert_near(betas[0], first, 1e-15);
    assert_near(betas[count / 2], middle, 1e-15);
    assert_near(betas[count - 1], last, 1e-15);
    free(betas);
    dm_scheduler_destroy(scheduler);
}

static void test_formulas(void **state) {
    (void)state;
    dm_scheduler_options options = defaults();
    options.num_train_timesteps = 5; /* the middle is exact */
    options.beta_schedule = DM_BETA_SCHEDULE_LINEAR;
    expect_betas(&options, 1e-4, (1e-4 + 0.02) / 2, 0.02);
    options.beta_schedule = DM_BETA_SCHEDULE_SCALED_LINEAR;
    options.beta_start = 0.0009, options.beta_end = 0.0121; /* roots 0.03, 0.11 */
    expect_betas(&options, 0.0009, 0.07 * 0.07, 0.0121);
    options.beta_schedule = DM_BETA_SCHEDULE_SIGMOID;
    options.beta_start = 0.1, options.beta_end = 0.3;
    expect_betas(&options, 0.1 + 0.2 / (1 + exp(6.0)), 0.2, 0.1 + 0.2 / (1 + exp(-6.0)));
    options.beta_schedule = DM_BETA_SCHEDULE_SQUARED_COSINE;
    const double unit = acos(-1.0) / 2 / 1.008;
    expect_betas(&options, 1 - pow(cos(0.208 * unit) / cos(0.008 * unit), 2),
                 1 - pow(cos(0.608 * unit) / cos(0.408 * unit), 2), 0.999);
    const double betas[5] = {0.1, 0.2, 0.3, 0.4, 0.5};
    options.beta_schedule = DM_BETA_SCHEDULE_CUSTOM;
    options.betas = betas;
    expect_betas(&options, 0.1, 0.3, 0.5);
    options = defaults();
    options.num_train_timesteps = 1;
    for (options.beta_schedule = 1; options.beta_schedule <= DM_BETA_SCHEDULE_SIGMOID;
         options.beta_schedule++)
        dm_scheduler_destroy(make(&options));
}

static void test_zero_snr(void **state) {
    (void)state;
    dm_scheduler_options options = defaults();
    options.beta_schedule = DM_BETA_SCHEDULE_SCALED_LINEAR;
    options.beta_start = 0.00085, options.beta_end = 0.012;
    dm_scheduler *plain = make(&options);
    options.rescale_betas_zero_snr = 1;
    dm_scheduler *rescaled = make(&options);
    double *before = read_doubles(plain, dm_scheduler_alpha_bars);
    double *after = read_doubles(rescaled, dm_scheduler_alpha_bars);
    double *betas = read_doubles(rescaled, dm_scheduler_betas);
    const double first = sqrt(before[0]), last = sqrt(before[999]);
    for (int t = 0; t < 1000; t += 37)
        assert_near(sqrt(after[t]), (sqrt(before[t]) - last) * first / (first - last), 1e-12);
    assert_near(after[0], before[0], 1e-15);
    assert_true(after[999] == 0.0 && betas[999] == 1.0 && after[998] > 0);
    /* its betas make the same schedule again */
    options = defaults();
    options.beta_schedule = DM_BETA_SCHEDULE_CUSTOM;
    options.betas = betas;
    dm_scheduler *again = make(&options);
    double *same = read_doubles(again, dm_scheduler_alpha_bars);
    for (int t = 0; t < 1000; t++) assert_near(same[t], after[t], 1e-15);
    free(same);
    dm_scheduler_destroy(again);
    free(before);
    free(after);
    free(betas);
    dm_scheduler_destroy(plain);
    dm_scheduler_destroy(rescaled);
}

/* ---- creation ---- */

typedef void (*spoil_fn)(dm_scheduler_options *options);
static double bad_betas[1000];
static void spoil_count(dm_scheduler_options *o) {
    o->num_train_timesteps = 0;
}
static void spoil_large_count(dm_scheduler_options *o) {
    o->num_train_timesteps = 1000001;
}
static void spoil_schedule(dm_scheduler_options *o) {
    o->beta_schedule = 7;
}
static void spoil_prediction(dm_scheduler_options *o) {
    o->prediction_type = 0;
}
static void spoil_spacing(dm_scheduler_options *o) {
    o->timestep_spacing = -1;
}
static void spoil_sampler(dm_scheduler_options *o) {
    o->sampler = 99;
}
static void spoil_variance(dm_scheduler_options *o) {
    o->variance_type = 5;
}
static void spoil_start(dm_scheduler_options *o) {
    o->beta_start = 0;
}
static void spoil_start_nan(dm_scheduler_options *o) {
    o->beta_start = NAN;
}
static void spoil_end(dm_scheduler_options *o) {
    o->beta_end = 1;
}
static void spoil_s(dm_scheduler_options *o) {
    o->cosine_s = INFINITY;
}
static void spoil_s_sign(dm_scheduler_options *o) {
    o->cosine_s = -0.1;
}
static void spoil_min(dm_scheduler_options *o) {
    o->beta_min = NAN;
}
static void spoil_max(dm_scheduler_options *o) {
    o->beta_max = o->beta_min / 2;
}
static void spoil_eta(dm_scheduler_options *o) {
    o->eta = 1.5;
}
static void spoil_eta_nan(dm_scheduler_options *o) {
    o->eta = NAN;
}
static void spoil_range(dm_scheduler_options *o) {
    o->clip_sample_range = 0;
}
static void spoil_range_inf(dm_scheduler_options *o) {
    o->clip_sample_range = INFINITY;
}
static void spoil_clip(dm_scheduler_options *o) {
    o->clip_sample = 2;
}
static void spoil_one(dm_scheduler_options *o) {
    o->set_alpha_to_one = -1;
}
static void spoil_clipped(dm_scheduler_options *o) {
    o->use_clipped_model_output = 5;
}
static void spoil_rescale(dm_scheduler_options *o) {
    o->rescale_betas_zero_snr = 3;
}
static void spoil_offset(dm_scheduler_options *o) {
    o->steps_offset = -1;
}
static void spoil_large_offset(dm_scheduler_options *o) {
    o->steps_offset = 1000;
}
static void spoil_betas(dm_scheduler_options *o) {
    o->betas = bad_betas;
}
static void spoil_custom(dm_scheduler_options *o) {
    o->beta_schedule = DM_BETA_SCHEDULE_CUSTOM;
}
static void spoil_one_beta(dm_scheduler_options *o) {
    for (int t = 0; t < 1000; t++) bad_betas[t] = t == 3 ? NAN : 0.01;
    o->beta_schedule = DM_BETA_SCHEDULE_CUSTOM;
    o->betas = bad_betas;
}
static void spoil_underflow(dm_scheduler_options *o) {
    o->beta_schedule = DM_BETA_SCHEDULE_LINEAR;
    o->beta_end = 0.9999;
}
static void spoil_no_noise(dm_scheduler_options *o) {
    o->beta_schedule = DM_BETA_SCHEDULE_LINEAR;
    o->beta_start = 1e-30;
}
static void spoil_rescale_short(dm_scheduler_options *o) {
    o->num_train_timesteps = 1;
    o->rescale_betas_zero_snr = 1;
}

static void test_bad_options(void **state) {
    (void)state;
    static const struct {
        spoil_fn spoil;
        const char *text;
    } rows[] = {
        {spoil_count, "options.num_train_timesteps: expected 1..1000000, got 0"},
        {spoil_large_count, "num_train_timesteps"},
        {spoil_schedule, "options.beta_schedule: expected one of its constants, got 7"},
        {spoil_prediction, "prediction_type"},
        {spoil_spacing, "timestep_spacing"},
        {spoil_sampler, "sampler"},
        {spoil_variance, "variance_type"},
        {spoil_start, "options.beta_start: expected 0 < beta < 1, got 0"},
        {spoil_start_nan, "beta_start"},
        {spoil_end, "beta_end"},
        {spoil_s, "cosine_s"},
        {spoil_s_sign, "cosine_s"},
        {spoil_min, "beta_min"},
        {spoil_max, "beta_max"},
        {spoil_eta, "options.eta: expected 0 <= eta <= 1, got 1.5"},
        {spoil_eta_nan, "eta"},
        {spoil_range, "clip_sample_range"},
        {spoil_range_inf, "clip_sample_range"},
        {spoil_clip, "options.clip_sample: expected 0 or 1, got 2"},
        {spoil_one, "set_alpha_to_one"},
        {spoil_clipped, "use_clipped_model_output"},
        {spoil_rescale, "rescale_betas_zero_snr"},
        {spoil_offset, "options.steps_offset: expected 0..999, got -1"},
        {spoil_large_offset, "steps_offset"},
        {spoil_betas, "options.betas: expected NULL"},
        {spoil_custom, "options.betas: expected 1000 numbers"},
        {spoil_one_beta, "options.betas[3]: expected 0 < beta < 1, got"},
        {spoil_underflow, "underflows to 0 at timestep"},
        {spoil_no_noise, "add no noise up to timestep 0"},
        {spoil_rescale_short, "rescale_betas_zero_snr"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        dm_scheduler_options options = defaults();
        dm_scheduler *scheduler = (dm_scheduler *)&options;
        rows[i].spoil(&options);
        assert_fails(dm_scheduler_create(NULL, &options, &scheduler), DM_ERROR_INVALID_ARGUMENT,
                     rows[i].text);
        assert_null(scheduler);
    }
    assert_fails(dm_scheduler_create(NULL, NULL, NULL), DM_ERROR_INVALID_ARGUMENT, "out");
}

static void test_newer_options(void **state) {
    (void)state;
    struct {
        dm_scheduler_options options;
        uint64_t later;
    } newer = {0};
    dm_scheduler *scheduler = NULL;
    dm_scheduler_options_init(&newer.options, sizeof(newer));
    assert_int_equal(dm_scheduler_create(NULL, &newer.options, &scheduler), DM_OK);
    dm_scheduler_destroy(scheduler);
    newer.later = 1;
    assert_int_equal(dm_scheduler_create(NULL, &newer.options, &scheduler), DM_ERROR_VERSION);
    assert_null(scheduler);
}

static void test_null_handles(void **state) {
    (void)state;
    float x[1] = {0};
    int32_t zero[1] = {0};
    dm_tensor f = view(x, DM_DTYPE_F32, 1, 1, 0), t = view(zero, DM_DTYPE_I32, 1, 1, 0);
    dm_scheduler_destroy(NULL);
    assert_int_equal(dm_scheduler_num_train_timesteps(NULL), 0);
    assert_int_equal(dm_scheduler_prediction_type(NULL), 0);
    assert_int_equal(dm_scheduler_num_timesteps(NULL), 0);
    assert_int_equal(dm_scheduler_timestep(NULL, 0), -1);
    assert_int_equal(dm_scheduler_step_needs_noise(NULL, 0), 0);
    assert_fails(dm_scheduler_betas(NULL, &f), DM_ERROR_INVALID_ARGUMENT, "scheduler");
    assert_fails(dm_scheduler_alpha_bars(NULL, &f), DM_ERROR_INVALID_ARGUMENT, "scheduler");
    assert_fails(dm_scheduler_add_noise(NULL, &f, &f, &t, &f), DM_ERROR_INVALID_ARGUMENT, "scheduler");
    assert_fails(dm_scheduler_target(NULL, &f, &f, &t, &f), DM_ERROR_INVALID_ARGUMENT, "scheduler");
    assert_fails(dm_scheduler_convert(NULL, 1, 2, &f, &t, &f, &f), DM_ERROR_INVALID_ARGUMENT, "scheduler");
    assert_fails(dm_scheduler_set_timesteps(NULL, 1), DM_ERROR_INVALID_ARGUMENT, "scheduler");
    assert_fails(dm_scheduler_set_custom_timesteps(NULL, &t), DM_ERROR_INVALID_ARGUMENT, "scheduler");
    assert_fails(dm_scheduler_step(NULL, 0, &f, &f, &f, &f, NULL), DM_ERROR_INVALID_ARGUMENT, "scheduler");
}

static void test_names(void **state) {
    (void)state;
    static const char *const schedules[] = {"lecture_cosine",    "linear",  "scaled_linear",
                                            "squaredcos_cap_v2", "sigmoid", "custom"};
    for (int32_t i = 0; i < 6; i++) {
        assert_string_equal(dm_beta_schedule_name(i + 1), schedules[i]);
        assert_int_equal(dm_beta_schedule_from_name(schedules[i]), i + 1);
    }
    assert_string_equal(dm_prediction_type_name(DM_PREDICTION_X0), "sample");
    assert_int_equal(dm_prediction_type_from_name("epsilon"), DM_PREDICTION_EPSILON);
    assert_int_equal(dm_prediction_type_from_name("sample"), DM_PREDICTION_X0);
    assert_int_equal(dm_prediction_type_from_name("v_prediction"), DM_PREDICTION_V);
    assert_int_equal(dm_prediction_type_from_name("flow_prediction"), DM_PREDICTION_FLOW);
    assert_int_equal(dm_prediction_type_from_name("score"), DM_PREDICTION_SCORE);
    assert_int_equal(dm_prediction_type_from_name("mean"), DM_PREDICTION_MEAN);
    assert_string_equal(dm_variance_type_name(DM_VARIANCE_LEARNED), "learned");
    assert_int_equal(dm_variance_type_from_name("learned_range"), DM_VARIANCE_LEARNED_RANGE);
    assert_int_equal(dm_timestep_spacing_from_name("leading"), DM_SPACING_LEADING);
    assert_int_equal(dm_timestep_spacing_from_name("trailing"), DM_SPACING_TRAILING);
    assert_string_equal(dm_timestep_spacing_name(DM_SPACING_LINSPACE), "linspace");
    assert_string_equal(dm_variance_type_name(DM_VARIANCE_FIXED_SMALL), "fixed_small");
    assert_int_equal(dm_variance_type_from_name("fixed_small_log"), DM_VARIANCE_FIXED_SMALL);
    assert_int_equal(dm_variance_type_from_name("fixed_large"), DM_VARIANCE_FIXED_LARGE);
    assert_string_equal(dm_sampler_type_name(DM_SAMPLER_DDPM), "ddpm");
    assert_int_equal(dm_sampler_from_name("ddim"), DM_SAMPLER_DDIM);
    assert_int_equal(dm_sampler_from_name("lecture"), DM_SAMPLER_LECTURE);
    assert_null(dm_sampler_type_name(0));
    assert_null(dm_beta_schedule_name(7));
    assert_null(dm_prediction_type_name(-1));
    assert_null(dm_timestep_spacing_name(4));
    assert_null(dm_variance_type_name(5));
    assert_int_equal(dm_sampler_from_name("DDIM"), 0);
    assert_int_equal(dm_sampler_from_name(NULL), 0);
    assert_int_equal(dm_beta_schedule_from_name(NULL), 0);
    assert_int_equal(dm_beta_schedule_from_name(""), 0);
}

/* ---- timesteps ---- */

static void expect_timesteps(dm_timestep_spacing spacing, int32_t offset, int32_t count,
                             const int32_t *expected) {
    dm_scheduler_options options = defaults();
    options.timestep_spacing = spacing;
    options.steps_offset = offset;
    dm_scheduler *scheduler = make(&options);
    assert_int_equal(dm_scheduler_set_timesteps(scheduler, count), DM_OK);
    assert_int_equal(dm_scheduler_num_timesteps(scheduler), count);
    for (int32_t i = 0; i < count; i++) assert_int_equal(dm_scheduler_timestep(scheduler, i), expected[i]);
    assert_int_equal(dm_scheduler_timestep(scheduler, count), -1);
    assert_int_equal(dm_scheduler_timestep(scheduler, -1), -1);
    dm_scheduler_destroy(scheduler);
}

static void test_spacings(void **state) {
    (void)state;
    expect_timesteps(DM_SPACING_LEADING, 0, 3, (int32_t[]){666, 333, 0});
    expect_timesteps(DM_SPACING_LEADING, 1, 4, (int32_t[]){751, 501, 251, 1});
    expect_timesteps(DM_SPACING_TRAILING, 0, 3, (int32_t[]){999, 666, 332});
    expect_timesteps(DM_SPACING_TRAILING, 0, 4, (int32_t[]){999, 749, 499, 249});
    /* 937.5 and 687.5 are rounded to the even neighbour */
    expect_timesteps(
        DM_SPACING_TRAILING, 0, 16,
        (int32_t[]){999, 937, 874, 811, 749, 687, 624, 561, 499, 437, 374, 311, 249, 187, 124, 61});
    /* 499.5 likewise */
    expect_timesteps(DM_SPACING_LINSPACE, 0, 3, (int32_t[]){999, 500, 0});
    expect_timesteps(DM_SPACING_LINSPACE, 0, 1, (int32_t[]){0});
    expect_timesteps(DM_SPACING_LEADING, 0, 1, (int32_t[]){0});
    expect_timesteps(DM_SPACING_TRAILING, 0, 1, (int32_t[]){999});
}

static void test_every_count_descends(void **state) {
    (void)state;
    int32_t timesteps[1000];
    for (dm_timestep_spacing spacing = 1; spacing <= 3; spacing++)
        for (int32_t count = 1; count <= 1000; count++) {
            for (int32_t i = 0; i < count; i++) timesteps[i] = dmi_timestep_at(spacing, 1000, 0, count, i);
            assert_in_range(timesteps[0], 0, 999);
            for (int32_t i = 1; i < count; i++) assert_in_range(timesteps[i], 0, timesteps[i - 1] - 1);
        }
}

static void test_timestep_errors(void **state) {
    (void)state;
    dm_scheduler_options options = defaults();
    options.steps_offset = 5;
    dm_scheduler *scheduler = make(&options);
    assert_int_equal(dm_scheduler_num_timesteps(scheduler), 1000);
    assert_int_equal(dm_scheduler_timestep(scheduler, 0), 999);
    assert_int_equal(dm_scheduler_set_timesteps(scheduler, 10), DM_OK);
    assert_fails(dm_scheduler_set_timesteps(scheduler, 0), DM_ERROR_INVALID_ARGUMENT,
                 "expected 1..1000, got 0");
    assert_fails(dm_scheduler_set_timesteps(scheduler, 1001), DM_ERROR_INVALID_ARGUMENT, "1001");
    assert_fails(dm_scheduler_set_timesteps(scheduler, 1000), DM_ERROR_INVALID_ARGUMENT, "steps_offset 5");
    int64_t rising[3] = {500, 600, 0}, high[2] = {1000, 1}, low[2] = {1, -1};
    float floats[2] = {1, 0};
    dm_tensor bad = view(rising, DM_DTYPE_I64, 1, 3, 0);
    assert_fails(dm_scheduler_set_custom_timesteps(scheduler, &bad), DM_ERROR_INVALID_ARGUMENT,
                 "timesteps[1]");
    bad = view(high, DM_DTYPE_I64, 1, 2, 0);
    assert_fails(dm_scheduler_set_custom_timesteps(scheduler, &bad), DM_ERROR_INVALID_ARGUMENT,
                 "0..999, got 1000");
    bad = view(low, DM_DTYPE_I64, 1, 2, 0);
    assert_fails(dm_scheduler_set_custom_timesteps(scheduler, &bad), DM_ERROR_INVALID_ARGUMENT, "got -1");
    bad = view(rising, DM_DTYPE_I64, 1, 0, 0);
    assert_int_equal(dm_scheduler_set_custom_timesteps(scheduler, &bad), DM_ERROR_SHAPE);
    bad = view(rising, DM_DTYPE_I64, 2, 1, 3);
    assert_int_equal(dm_scheduler_set_custom_timesteps(scheduler, &bad), DM_ERROR_SHAPE);
    bad = view(floats, DM_DTYPE_F32, 1, 2, 0);
    assert_fails(dm_scheduler_set_custom_timesteps(scheduler, &bad), DM_ERROR_DTYPE, "i32 or i64");
    assert_int_equal(dm_scheduler_set_custom_timesteps(scheduler, NULL), DM_ERROR_INVALID_ARGUMENT);
    /* all of them left the run of 10 steps alone */
    assert_int_equal(dm_scheduler_num_timesteps(scheduler), 10);
    assert_int_equal(dm_scheduler_timestep(scheduler, 0), 905);
    dm_scheduler_destroy(scheduler);
}

static void test_custom_timesteps(void **state) {
    (void)state;
    dm_scheduler *scheduler = make(NULL), *copy = NULL;
    int32_t own[6] = {999, -7, 400, -7, 3, -7};
    const int64_t shape[1] = {3}, strides[1] = {2};
    dm_tensor *timesteps = NULL;
    assert_int_equal(dm_tensor_wrap(NULL, own, DM_DTYPE_I32, 1, shape, strides, &timesteps), DM_OK);
    assert_int_equal(dm_scheduler_set_custom_timesteps(scheduler, timesteps), DM_OK);
    assert_int_equal(dmi_scheduler_clone(NULL, scheduler, &copy), DM_OK);
    for (dm_scheduler *s = scheduler;; s = copy) {
        assert_int_equal(dm_scheduler_num_timesteps(s), 3);
        assert_int_equal(dm_scheduler_timestep(s, 1), 400);
        assert_int_equal(dm_scheduler_timestep(s, 2), 3);
        if (s == copy) break;
    }
    assert_int_equal(copy->custom_timesteps, 1);
    assert_memory_equal(copy->alpha_bars, scheduler->alpha_bars, 1000 * sizeof(double));
    assert_memory_equal(copy->betas, scheduler->betas, 1000 * sizeof(double));
    dm_tensor_destroy(timesteps);
    dm_scheduler_destroy(copy);
    dm_scheduler_destroy(scheduler);
}

/* ---- memory ---- */

typedef struct failing {
    int left; /* allocations that succeed */
} failing;

static void *failing_alloc(uint64_t bytes, uint64_t alignment, void *user) {
    failing *f = user;
    void *pointer = NULL;
    if (f->left-- <= 0) return NULL;
    return posix_memalign(&pointer, (size_t)alignment, (size_t)bytes) == 0 ? pointer : NULL;
}

static void failing_free(void *pointer, uint64_t bytes, void *user) {
    (void)bytes;
    (void)user;
    free(pointer);
}

static void test_out_of_memory(void **state) {
    (void)state;
    failing allocator = {1000};
    dm_context *context = NULL;
    dm_context_options options;
    dm_context_options_init(&options, sizeof(options));
    options.num_threads = 1;
    options.alloc = failing_alloc;
    options.free = failing_free;
    options.alloc_user = &allocator;
    assert_int_equal(dm_context_create(&options, &context), DM_OK);
    const uint64_t before = dm_context_memory(context);
    dm_scheduler *s = NULL, *copy = NULL;
    int failures = 0;
    for (int allowed = 0;; allowed++, failures++) {
        allocator.left = allowed;
        const dm_status status = dm_scheduler_create(context, NULL, &s);
        if (status == DM_OK) break;
        assert_int_equal(status, DM_ERROR_OUT_OF_MEMORY);
        assert_null(s);
        assert_int_equal(dm_context_memory(context), before);
    }
    assert_int_equal(failures, 4);
    const uint64_t with_one = dm_context_memory(context);
    for (int allowed = 0; allowed < 4; allowed++) {
        allocator.left = allowed;
        assert_int_equal(dmi_scheduler_clone(context, s, &copy), DM_ERROR_OUT_OF_MEMORY);
        assert_null(copy);
        assert_int_equal(dm_context_memory(context), with_one);
    }
    int32_t own[2] = {5, 3};
    dm_tensor timesteps = view(own, DM_DTYPE_I32, 1, 2, 0);
    allocator.left = 0;
    assert_int_equal(dm_scheduler_set_timesteps(s, 10), DM_ERROR_OUT_OF_MEMORY);
    assert_int_equal(dm_scheduler_set_custom_timesteps(s, &timesteps), DM_ERROR_OUT_OF_MEMORY);
    assert_int_equal(dm_scheduler_num_timesteps(s), 1000);
    /* steps and the forward process allocate nothing */
    fixture *f = make_fixture();
    assert_int_equal(dm_scheduler_add_noise(s, &f->x0_t, &f->noise_t, &f->t, &f->a_t), DM_OK);
    assert_int_equal(dm_scheduler_step(s, 0, &f->x0_t, &f->noise_t, &f->a_t, &f->b_t, NULL), DM_OK);
    free(f);
    dm_scheduler_destroy(s);
    assert_int_equal(dm_context_memory(context), before);
    dm_context_destroy(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lecture_values),
        cmocka_unit_test(test_formulas),
        cmocka_unit_test(test_zero_snr),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_newer_options),
        cmocka_unit_test(test_null_handles),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_spacings),
        cmocka_unit_test(test_every_count_descends),
        cmocka_unit_test(test_timestep_errors),
        cmocka_unit_test(test_custom_timesteps),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
