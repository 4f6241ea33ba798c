/* scheduler_config.json: what is written is read back, what other programs write is read, the rest is
 * refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/stat.h>
#include <unistd.h>

#include "unit/scheduler_support.h"

static const char path[] = "scheduler_config_test.json";

static void write_file(const char *name, const char *text) {
    FILE *file = fopen(name, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

static dm_scheduler *load_text(const char *text) {
    dm_scheduler *scheduler = NULL;
    write_file(path, text);
    if (dm_scheduler_load_pretrained(NULL, path, 0, &scheduler) != DM_OK) fail_msg("%s", dm_last_error());
    return scheduler;
}

/* The same betas, run and steps. */
static void expect_same(dm_scheduler *a, dm_scheduler *b) {
    const int32_t count = dm_scheduler_num_train_timesteps(a);
    assert_int_equal(dm_scheduler_num_train_timesteps(b), count);
    assert_int_equal(a->options.sampler, b->options.sampler);
    assert_int_equal(a->options.prediction_type, b->options.prediction_type);
    assert_int_equal(a->options.clip_sample, b->options.clip_sample);
    assert_int_equal(a->options.thresholding, b->options.thresholding);
    if (a->options.process <= DM_PROCESS_DISCRETE && a->options.sampler != DM_SAMPLER_IPNDM)
        assert_memory_equal(a->betas, b->betas, (size_t)count * sizeof(double));
    const int32_t steps = 5;
    assert_int_equal(dm_scheduler_set_timesteps(a, steps), DM_OK);
    assert_int_equal(dm_scheduler_set_timesteps(b, steps), DM_OK);
    assert_int_equal(a->num_timesteps, b->num_timesteps);
    assert_memory_equal(&a->init_noise_sigma, &b->init_noise_sigma, sizeof(double));
    for (int32_t i = 0; i <= a->num_timesteps; i++) {
        assert_true(a->points[i].t == b->points[i].t && a->points[i].sigma == b->points[i].sigma);
        assert_true(a->points[i].input_scale == b->points[i].input_scale);
    }
}

static void test_what_is_written_is_read(void **state) {
    (void)state;
    for (dm_sampler_type type = 1; dm_sampler_type_name(type); type++) {
        dm_scheduler_options options = defaults();
        dm_scheduler *copy = NULL;
        options.sampler = type;
        options.beta_schedule = type % 3 ? DM_BETA_SCHEDULE_SCALED_LINEAR : DM_BETA_SCHEDULE_LECTURE_COSINE;
        options.prediction_type = DM_PREDICTION_V;
        options.timestep_spacing = DM_SPACING_TRAILING;
        options.clip_sample = 0;
        options.num_train_timesteps = 200;
        if (type == DM_SAMPLER_CM) options.process = DM_PROCESS_EDM;
        if (type == DM_SAMPLER_CM || type == DM_SAMPLER_IPNDM) options.timestep_spacing = DM_SPACING_LINSPACE;
        if (type == DM_SAMPLER_TCD) options.eta = 0.3;
        if (type == DM_SAMPLER_UNIPC) options.sigma_schedule = DM_SIGMAS_KARRAS, options.solver_order = 3;
        if (type == DM_SAMPLER_CM) options.prediction_type = DM_PREDICTION_EPSILON;
        dm_scheduler *s = make(&options);
        const dm_status status = dm_scheduler_save_pretrained(s, path);
        if (type == DM_SAMPLER_LECTURE || type >= DM_SAMPLER_EDM) { /* the package has none of these */
            assert_int_equal(status, DM_ERROR_UNSUPPORTED);
        } else {
            if (status != DM_OK || dm_scheduler_load_pretrained(NULL, path, 0, &copy) != DM_OK)
                fail_msg("%s: %s", dm_sampler_type_name(type), dm_last_error());
            expect_same(s, copy);
        }
        dm_scheduler_destroy(copy);
        dm_scheduler_destroy(s);
    }
    unlink(path);
}

static void test_other_processes(void **state) {
    (void)state;
    static const dm_sampler_type types[] = {DM_SAMPLER_EULER, DM_SAMPLER_HEUN, DM_SAMPLER_DPMPP_2M,
                                            DM_SAMPLER_UNIPC};
    for (int i = 0; i < 4; i++) {
        dm_scheduler_options options = defaults();
        dm_scheduler *copy = NULL;
        options.sampler = types[i];
        options.process = DM_PROCESS_FLOW;
        options.prediction_type = DM_PREDICTION_FLOW;
        options.beta_schedule = DM_BETA_SCHEDULE_LINEAR;
        options.flow_shift = 3;
        options.clip_sample = 0;
        options.timestep_spacing = DM_SPACING_LINSPACE;
        dm_scheduler *s = make(&options);
        assert_int_equal(dm_scheduler_save_pretrained(s, path), DM_OK);
        if (dm_scheduler_load_pretrained(NULL, path, 0, &copy) != DM_OK) fail_msg("%s", dm_last_error());
        expect_same(s, copy);
        dm_scheduler_destroy(copy);
        dm_scheduler_destroy(s);
    }
    unlink(path);
}

/* A file of the package's, with keys of other classes and Python's infinity. */
static void test_files_of_others(void **state) {
    (void)state;
    dm_scheduler *s =
        load_text("{\"_class_name\": \"PNDMScheduler\", \"_diffusers_version\": \"0.6.0\",\n"
                  " \"beta_end\": 0.012, \"beta_schedule\": \"scaled_linear\", \"beta_start\": 0.00085,\n"
                  " \"num_train_timesteps\": 1000, \"set_alpha_to_one\": false, \"skip_prk_steps\": true,\n"
                  " \"steps_offset\": 1, \"trained_betas\": null, \"clip_sample\": true}");
    assert_int_equal(s->options.sampler, DM_SAMPLER_PLMS);
    assert_int_equal(s->options.clip_sample, 0);
    assert_int_equal(s->options.steps_offset, 1);
    dm_scheduler_destroy(s);
    s = load_text("{\"_class_name\": \"DPMSolverMultistepScheduler\", \"lambda_min_clipped\": -Infinity,\n"
                  " \"note\": null, \"algorithm_type\": \"sde-dpmsolver++\", \"use_karras_sigmas\": true}");
    assert_int_equal(s->options.sampler, DM_SAMPLER_DPMPP_2M_SDE);
    assert_int_equal(s->options.sigma_schedule, DM_SIGMAS_KARRAS);
    assert_true(s->options.lambda_min_clipped == 0);
    assert_int_equal(s->options.timestep_spacing, DM_SPACING_LINSPACE);
    dm_scheduler_destroy(s);
    /* betas of their own, another algorithm, a directory */
    write_file(path, "{\"_class_name\": \"DDPMScheduler\", \"num_train_timesteps\": 3, \"trained_betas\": "
                     "[0.1, 0.2, 0.3]}");
    assert_int_equal(dm_scheduler_load_pretrained(NULL, path, DM_SAMPLER_EULER, &s), DM_OK);
    assert_int_equal(s->options.sampler, DM_SAMPLER_EULER);
    assert_true(s->betas[1] == 0.2);
    dm_scheduler_destroy(s);
    mkdir("scheduler_config_test", 0700);
    mkdir("scheduler_config_test/scheduler", 0700);
    assert_int_equal(rename(path, "scheduler_config_test/scheduler/scheduler_config.json"), 0);
    assert_int_equal(dm_scheduler_load_pretrained(NULL, "scheduler_config_test", 0, &s), DM_OK);
    assert_int_equal(dm_scheduler_save_pretrained(s, "scheduler_config_test"), DM_OK);
    dm_scheduler_destroy(s);
    assert_int_equal(unlink("scheduler_config_test/scheduler_config.json"), 0);
    assert_int_equal(unlink("scheduler_config_test/scheduler/scheduler_config.json"), 0);
    rmdir("scheduler_config_test/scheduler");
    rmdir("scheduler_config_test");
}

static void expect_refused(const char *text, dm_status status, const char *message) {
    dm_scheduler *s = (dm_scheduler *)1;
    write_file(path, text);
    assert_fails(dm_scheduler_load_pretrained(NULL, path, 0, &s), status, message);
    assert_null(s);
}

static void test_refusals(void **state) {
    (void)state;
    dm_scheduler *s = NULL;
    expect_refused("{}", DM_ERROR_FORMAT, "_class_name");
    expect_refused("[1]", DM_ERROR_FORMAT, "_class_name");
    expect_refused("{", DM_ERROR_FORMAT, path);
    expect_refused("{\"_class_name\": \"NoScheduler\"}", DM_ERROR_UNSUPPORTED, "NoScheduler");
    expect_refused("{\"_class_name\": \"DDPMScheduler\", \"speed\": 3}", DM_ERROR_UNSUPPORTED, "speed = 3");
    expect_refused("{\"_class_name\": \"DDPMScheduler\", \"beta_start\": \"x\"}", DM_ERROR_FORMAT,
                   "beta_start");
    expect_refused("{\"_class_name\": \"DDPMScheduler\", \"beta_schedule\": \"laplace\"}",
                   DM_ERROR_UNSUPPORTED, "laplace");
    expect_refused(
        "{\"_class_name\": \"DDPMScheduler\", \"num_train_timesteps\": 3, \"trained_betas\": [0.1]}",
        DM_ERROR_FORMAT, "expected 3 numbers, got 1");
    expect_refused("{\"_class_name\": \"DDPMScheduler\", \"beta_end\": -Infinite}", DM_ERROR_FORMAT, path);
    expect_refused("{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\", \"use_dynamic_shifting\": true}",
                   DM_ERROR_UNSUPPORTED, "flow_mu");
    unlink(path);
    assert_int_equal(dm_scheduler_load_pretrained(NULL, path, 0, &s), DM_ERROR_IO);
    assert_fails(dm_scheduler_load_pretrained(NULL, NULL, 0, &s), DM_ERROR_INVALID_ARGUMENT, "path");
    assert_fails(dm_scheduler_load_pretrained(NULL, path, 9999, &s), DM_ERROR_INVALID_ARGUMENT, "sampler");
    assert_fails(dm_scheduler_load_pretrained(NULL, path, 0, NULL), DM_ERROR_INVALID_ARGUMENT, "out");
    assert_fails(dm_scheduler_save_pretrained(NULL, path), DM_ERROR_INVALID_ARGUMENT, "scheduler");
}

/* The options of a file, with another sampler and spacing, make the run that the options alone make. */
static void test_options_of_a_file(void **state) {
    (void)state;
    dm_scheduler *file =
        load_text("{\"_class_name\": \"DDIMScheduler\", \"beta_schedule\": \"scaled_linear\","
                  "\"prediction_type\": \"v_prediction\", \"clip_sample\": false}");
    dm_scheduler_options options = defaults(), given = defaults();
    assert_int_equal(dm_scheduler_get_options(file, &options), DM_OK);
    assert_int_equal(options.sampler, DM_SAMPLER_DDIM);
    assert_int_equal(options.clip_sample, 0);
    assert_null(options.betas);
    options.sampler = given.sampler = DM_SAMPLER_EULER;
    options.timestep_spacing = given.timestep_spacing = DM_SPACING_TRAILING;
    given.beta_schedule = DM_BETA_SCHEDULE_SCALED_LINEAR;
    given.prediction_type = DM_PREDICTION_V;
    given.clip_sample = 0;
    dm_scheduler *changed = make(&options), *direct = make(&given);
    expect_same(changed, direct);
    dm_scheduler_destroy(direct);
    dm_scheduler_destroy(changed);
    dm_scheduler_destroy(file);
    unlink(path);
}

/* Betas of one's own come back rescaled, once. */
static void test_options_with_betas(void **state) {
    (void)state;
    const double betas[4] = {0.1, 0.2, 0.3, 0.4};
    dm_scheduler_options options = defaults(), got = defaults(), old;
    options.num_train_timesteps = 4;
    options.beta_schedule = DM_BETA_SCHEDULE_CUSTOM;
    options.betas = betas;
    options.rescale_betas_zero_snr = 1;
    options.prediction_type = DM_PREDICTION_V;
    dm_scheduler *s = make(&options);
    assert_int_equal(dm_scheduler_get_options(s, &got), DM_OK);
    assert_ptr_equal(got.betas, s->betas);
    assert_true(got.betas[3] == 1.0);
    dm_scheduler *copy = make(&got);
    assert_memory_equal(copy->betas, s->betas, sizeof betas);

    /* a struct of an older version: nothing is written beyond it */
    memset(&old, 0x5a, sizeof old);
    old.struct_size = offsetof(dm_scheduler_options, process);
    assert_int_equal(dm_scheduler_get_options(s, &old), DM_OK);
    assert_int_equal(old.num_train_timesteps, 4);
    assert_int_equal(old.process, 0x5a5a5a5a);
    old.struct_size = 8;
    assert_int_equal(dm_scheduler_get_options(s, &old), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(dm_scheduler_get_options(s, NULL), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(dm_scheduler_get_options(NULL, &got), DM_ERROR_INVALID_ARGUMENT);
    dm_scheduler_destroy(copy);
    dm_scheduler_destroy(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read), cmocka_unit_test(test_other_processes),
        cmocka_unit_test(test_files_of_others),         cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_options_of_a_file),       cmocka_unit_test(test_options_with_betas),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
