/* Network files and checkpoints: what they hold, continuing bit for bit, and files that do not fit or are
 * damaged. */
#include "train_fixture.h"

static char path[128];

static int setup(void **state) {
    (void)state;
    temporary_path(path, sizeof path, "checkpoint.safetensors");
    return 0;
}

static int teardown(void **state) {
    (void)state;
    (void)unlink(path);
    return 0;
}

/* ---- continuing ---- */

/* What a run of 10 steps leaves behind. */
typedef struct outcome {
    diary d;
    float *weights, *state[DMI_STATE_COUNT];
    int64_t epoch, offset;
    double validation;
} outcome;

static float *copy_floats(const float *values, size_t bytes) {
    if (values == NULL) return NULL;
    float *copy = malloc(bytes);
    assert_non_null(copy);
    memcpy(copy, values, bytes);
    return copy;
}

static outcome take_outcome(rig *r, const diary *d) {
    outcome o = {
        .d = *d, .weights = copy_weights(r->net), .epoch = r->data->epoch, .offset = r->data->offset};
    for (int i = 0; i < DMI_STATE_COUNT; i++) {
        o.state[i] = copy_floats(r->trainer->optimizer->state[i], weight_bytes(r->net));
    }
    OK(dm_trainer_validate(r->trainer, r->data, 3, &o.validation));
    return o;
}

static void compare_outcomes(const outcome *a, const outcome *b, int first, size_t bytes) {
    for (int i = first; i < a->d.count; i++) {
        const dm_train_progress *p = &a->d.entries[i], *q = &b->d.entries[i - first];
        assert_int_equal(p->step, q->step);
        assert_int_equal(p->epoch, q->epoch);
        assert_true(p->loss == q->loss);
        assert_true(p->mean_loss == q->mean_loss);
        assert_true(p->grad_norm == q->grad_norm);
        assert_true(p->learning_rate == q->learning_rate);
    }
    assert_memory_equal(a->weights, b->weights, bytes);
    for (int i = 0; i < DMI_STATE_COUNT; i++) {
        if (a->state[i] != NULL) assert_memory_equal(a->state[i], b->state[i], bytes);
    }
    assert_true(a->validation == b->validation);
    assert_int_equal(a->epoch, b->epoch);
    assert_int_equal(a->offset, b->offset);
}

static void free_outcome(outcome *o) {
    free(o->weights);
    for (int i = 0; i < DMI_STATE_COUNT; i++) free(o->state[i]);
}

typedef void (*change_fn)(rig *r);

/* Trains to `stop`, saves; in a new process's place trains to 10 from the file. first: diary entry to compare
 * from. */
static outcome run_in_two(change_fn change, int unet, int64_t stop, int64_t final) {
    diary d = {0};
    rig first = rig_start(1, NULL, unet);
    change(&first);
    rig_finish(&first);
    if (stop > 0) OK(dm_trainer_fit(first.trainer, first.data, stop));
    OK(dm_trainer_save(first.trainer, first.data, path));
    rig_destroy(&first);
    rig second = rig_start(2, NULL, unet);
    change(&second);
    second.options.progress = keep_diary;
    second.options.progress_user = &d;
    rig_finish(&second);
    memset(second.net->weights, 0, 4); /* not what the file holds */
    OK(dm_trainer_resume(second.trainer, second.data, path));
    assert_int_equal(dm_trainer_num_steps(second.trainer), stop);
    OK(dm_trainer_fit(second.trainer, second.data, final));
    outcome o = take_outcome(&second, &d);
    rig_destroy(&second);
    return o;
}

static void check_resume(change_fn change, int unet, int64_t stop) {
    diary d = {0};
    rig whole = rig_start(1, NULL, unet);
    change(&whole);
    whole.options.progress = keep_diary;
    whole.options.progress_user = &d;
    rig_finish(&whole);
    OK(dm_trainer_fit(whole.trainer, whole.data, 10));
    outcome a = take_outcome(&whole, &d), b = run_in_two(change, unet, stop, 10);
    compare_outcomes(&a, &b, (int)stop, weight_bytes(whole.net));
    free_outcome(&a);
    free_outcome(&b);
    rig_destroy(&whole);
}

static void use_adam(rig *r) {
    r->optimizer.amsgrad = 1;
    r->optimizer.ema_decay = 0.95;
    r->optimizer.clip_grad_norm = 0.5;
    r->options.total_steps = 12;
    r->options.lr_schedule = DM_LR_COSINE;
    r->options.warmup_steps = 3;
    r->options.lr_min = 1e-4;
}

static void use_sgd(rig *r) {
    r->optimizer.type = DM_OPTIMIZER_SGD;
    r->optimizer.momentum = 0.9;
    r->optimizer.weight_decay = 0.01;
    r->options.accumulation = 2;
    r->options.lr_schedule = DM_LR_STEP;
    r->options.lr_step_size = 3;
}

static void use_milestones(rig *r) {
    static int64_t milestones[2];
    milestones[0] = 2, milestones[1] = 6;
    r->options.lr_schedule = DM_LR_MULTISTEP;
    r->options.lr_milestones = milestones;
    r->options.num_lr_milestones = 2;
    r->options.lr_gamma = 0.3;
}

static void use_classes(rig *r) {
    r->optimizer.type = DM_OPTIMIZER_ADAMW;
    r->optimizer.weight_decay = 0.1;
    r->optimizer.ema_decay = 0.5;
    r->options.label_dropout = 0.3;
}

static void test_resume(void **state) {
    (void)state;
    check_resume(use_adam, 0, 5); /* at the end of an epoch */
    check_resume(use_milestones, 0, 4);
    check_resume(use_adam, 0, 7);
    check_resume(use_adam, 0, 0);
    check_resume(use_sgd, 0, 4);
    check_resume(use_classes, 1, 6);
}

/* A learning rate set in between comes back too. */
static void test_learning_rate(void **state) {
    (void)state;
    rig a = rig_start(1, NULL, 0), b = rig_start(1, NULL, 0);
    rig_finish(&a);
    rig_finish(&b);
    OK(dm_optimizer_set_learning_rate(dm_trainer_optimizer(a.trainer), 0.0625));
    OK(dm_trainer_save(a.trainer, NULL, path));
    OK(dm_trainer_resume(b.trainer, NULL, path));
    assert_true(b.trainer->optimizer->learning_rate == 0.0625);
    rig_destroy(&a);
    rig_destroy(&b);
}

/* fit() writes every 4 steps, at the end, and when it is stopped; not after a failure. */
static void test_fit_writes(void **state) {
    (void)state;
    diary d = {.stop_at = 6};
    rig r = rig_start(1, NULL, 0), reader = rig_start(1, NULL, 0);
    r.options.checkpoint_path = path;
    r.options.checkpoint_every = 4;
    r.options.progress = keep_diary;
    r.options.progress_user = &d;
    rig_finish(&r);
    rig_finish(&reader);
    assert_int_equal(dm_trainer_fit(r.trainer, r.data, 9), DM_ERROR_CANCELLED);
    assert_non_null(strstr(dm_last_error(), "after step 6"));
    OK(dm_trainer_resume(reader.trainer, reader.data, path));
    assert_int_equal(dm_trainer_num_steps(reader.trainer), 6);
    OK(dm_trainer_fit(r.trainer, r.data, 9));
    OK(dm_trainer_resume(reader.trainer, reader.data, path));
    assert_int_equal(dm_trainer_num_steps(reader.trainer), 9);
    ((float *)r.trainer->net->weights)[0] = NAN; /* the next loss is none */
    dmi_net_touch(r.net);
    assert_int_equal(dm_trainer_fit(r.trainer, r.data, 20), DM_ERROR_NUMERIC);
    OK(dm_trainer_resume(r.trainer, r.data, path));
    OK(dm_trainer_fit(r.trainer, r.data, 11));
    OK(dm_trainer_resume(reader.trainer, reader.data, path));
    assert_int_equal(dm_trainer_num_steps(reader.trainer), 11);
    rig_destroy(&r);
    rig_destroy(&reader);
}

static void test_unwritable(void **state) {
    (void)state;
    rig r = rig_start(1, NULL, 0);
    r.options.checkpoint_path = "no/such/directory/file";
    r.options.checkpoint_every = 2;
    rig_finish(&r);
    FAILS(DM_ERROR_IO, "no/such/directory", dm_trainer_fit(r.trainer, r.data, 5));
    assert_int_equal(dm_trainer_num_steps(r.trainer), 2);
    assert_non_null(strstr(dm_trainer_last_error(r.trainer), "no/such/directory"));
    FAILS(DM_ERROR_IO, "no/such/directory", dm_trainer_save(r.trainer, NULL, "no/such/directory/file"));
    rig_destroy(&r);
}

/* ---- checkpoints that do not fit ---- */

typedef struct mismatch {
    const char *says;
    change_fn change;
} mismatch;

static void change_batch(rig *r) {
    r->options.batch = 5;
}
static void change_accumulation(rig *r) {
    r->options.accumulation = 3;
}
static void change_seed(rig *r) {
    r->options.seed = 100;
}
static void change_schedule(rig *r) {
    r->options.lr_schedule = DM_LR_LINEAR;
}
static void change_warmup(rig *r) {
    r->options.warmup_steps = 1;
}
static void change_total(rig *r) {
    r->options.total_steps = 99;
}
static void change_type(rig *r) {
    r->optimizer.type = DM_OPTIMIZER_ADAMW;
}
static void change_rate(rig *r) {
    r->optimizer.learning_rate = 0.02;
}
static void change_beta1(rig *r) {
    r->optimizer.beta1 = 0.8;
}
static void change_amsgrad(rig *r) {
    r->optimizer.amsgrad = 1;
}
static void change_ema(rig *r) {
    r->optimizer.ema_decay = 0.99;
}
static void change_clip(rig *r) {
    r->optimizer.clip_grad_norm = 1.0;
}

static void change_prediction(rig *r) {
    dm_scheduler_destroy(r->scheduler);
    r->scheduler = make_scheduler(r->context, DM_PREDICTION_V);
}

static void change_betas(rig *r) {
    dm_scheduler_options options;
    dm_scheduler_options_init(&options, sizeof options);
    options.num_train_timesteps = 100;
    options.beta_max = 0.0199;
    dm_scheduler_destroy(r->scheduler);
    OK(dm_scheduler_create(r->context, &options, &r->scheduler));
}

static void change_timesteps(rig *r) {
    dm_scheduler_options options;
    dm_scheduler_options_init(&options, sizeof options);
    options.num_train_timesteps = 101;
    dm_scheduler_destroy(r->scheduler);
    OK(dm_scheduler_create(r->context, &options, &r->scheduler));
}

static void change_net(rig *r) {
    static const int32_t dims[3] = {16, 25, 16};
    dm_net_destroy(r->net);
    r->net = make_mlp(r->context, 3, dims);
}

static void change_data_seed(rig *r) {
    dm_dataset_destroy(r->data);
    OK(dm_dataset_create(r->context, r->images, r->labels, 12, &r->data));
}

static int32_t give_nothing(dm_tensor *x0, dm_tensor *labels, void *user) {
    (void)x0, (void)labels, (void)user;
    return 1;
}

static void change_data_size(rig *r) {
    const int64_t sample[3] = {1, 4, 4};
    dm_dataset_destroy(r->data);
    OK(dm_dataset_create_callback(r->context, give_nothing, NULL, 23, sample, &r->data));
}

static const mismatch mismatches[] = {
    {"options.batch: expected 4", change_batch},
    {"options.accumulation: expected 1", change_accumulation},
    {"options.seed: expected 99", change_seed},
    {"options.lr_schedule: expected constant", change_schedule},
    {"options.warmup_steps: expected 0", change_warmup},
    {"options.total_steps: expected 0", change_total},
    {"optimizer.type: expected adam", change_type},
    {"optimizer.learning_rate: expected 0.01", change_rate},
    {"optimizer.beta1: expected 0.9", change_beta1},
    {"optimizer.amsgrad: expected 0", change_amsgrad},
    {"optimizer.ema_decay: expected 0", change_ema},
    {"optimizer.clip_grad_norm: expected 0", change_clip},
    {"scheduler.prediction_type: expected epsilon", change_prediction},
    {"scheduler: expected beta[", change_betas},
    {"scheduler: expected 100 timesteps", change_timesteps},
    {"net: expected the structure", change_net},
    {"data.seed: expected 11", change_data_seed},
    {"data: expected 22 images", change_data_size},
};

/* A refusal names what differs and changes nothing. */
static void test_mismatches(void **state) {
    (void)state;
    rig saved = rig_start(1, NULL, 0);
    rig_finish(&saved);
    OK(dm_trainer_fit(saved.trainer, saved.data, 3));
    OK(dm_trainer_save(saved.trainer, saved.data, path));
    for (size_t i = 0; i < sizeof mismatches / sizeof mismatches[0]; i++) {
        rig r = rig_start(1, NULL, 0);
        mismatches[i].change(&r);
        rig_finish(&r);
        float *before = copy_weights(r.net);
        FAILS(DM_ERROR_INVALID_ARGUMENT, mismatches[i].says, dm_trainer_resume(r.trainer, r.data, path));
        assert_non_null(strstr(dm_trainer_last_error(r.trainer), mismatches[i].says));
        assert_memory_equal(before, r.net->weights, weight_bytes(r.net));
        assert_int_equal(dm_trainer_num_steps(r.trainer), 0);
        assert_int_equal(r.data->offset, 0);
        free(before);
        rig_destroy(&r);
    }
    rig_destroy(&saved);
}

static void test_resume_errors(void **state) {
    (void)state;
    rig r = rig_start(1, NULL, 0);
    const int64_t shape[4] = {4, 1, 4, 4};
    dm_tensor *x0 = make_normal(1, 4, shape);
    r.options.accumulation = 2;
    rig_finish(&r);
    OK(dm_trainer_save(r.trainer, NULL, path));
    FAILS(DM_ERROR_STATE, "data: expected NULL", dm_trainer_resume(r.trainer, r.data, path));
    OK(dm_trainer_resume(r.trainer, NULL, path));
    OK(dm_net_save(r.net, path));
    FAILS(DM_ERROR_FORMAT, "expected a checkpoint, got net", dm_trainer_resume(r.trainer, NULL, path));
    FAILS(DM_ERROR_IO, "missing", dm_trainer_resume(r.trainer, NULL, "missing/file"));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "path", dm_trainer_resume(r.trainer, NULL, NULL));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "trainer", dm_trainer_resume(NULL, NULL, path));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "path", dm_trainer_save(r.trainer, NULL, NULL));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "trainer", dm_trainer_save(NULL, NULL, path));
    OK(dm_trainer_step(r.trainer, x0, NULL, NULL, NULL, NULL));
    FAILS(DM_ERROR_STATE, "1 of 2 micro-batches", dm_trainer_save(r.trainer, NULL, path));
    dm_tensor_destroy(x0);
    rig_destroy(&r);
}

/* ---- damaged files ---- */

typedef struct bytes {
    unsigned char *data;
    size_t size;
} bytes;

static bytes read_file(void) {
    bytes b = {0};
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    b.size = (size_t)ftell(file);
    rewind(file);
    b.data = malloc(b.size);
    assert_int_equal(fread(b.data, 1, b.size, file), b.size);
    (void)fclose(file);
    return b;
}

static void write_file(const unsigned char *data, size_t size) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    (void)fclose(file);
}

static void test_truncated(void **state) {
    (void)state;
    rig r = rig_start(1, NULL, 0);
    rig_finish(&r);
    OK(dm_trainer_fit(r.trainer, r.data, 2));
    OK(dm_trainer_save(r.trainer, r.data, path));
    const bytes whole = read_file();
    float *before = copy_weights(r.net);
    for (size_t size = 0; size < whole.size; size += size < 200 ? 7 : whole.size / 61) {
        write_file(whole.data, size);
        assert_int_equal(dm_trainer_resume(r.trainer, r.data, path), DM_ERROR_FORMAT);
        assert_non_null(strstr(dm_last_error(), path));
        assert_memory_equal(before, r.net->weights, weight_bytes(r.net));
    }
    free(before);
    free(whole.data);
    rig_destroy(&r);
}

/* Replaces the first `old` of the file by a text of the same length. */
static void patch(const bytes *whole, const char *old, const char *new) {
    const size_t length = strlen(old);
    assert_int_equal(strlen(new), length);
    for (size_t i = 0; i + length <= whole->size; i++) {
        if (memcmp(whole->data + i, old, length) != 0) continue;
        unsigned char *copy = malloc(whole->size);
        memcpy(copy, whole->data, whole->size);
        memcpy(copy + i, new, length);
        write_file(copy, whole->size);
        free(copy);
        return;
    }
    fail_msg("the file has no %s", old);
}

static void test_patched(void **state) {
    (void)state;
    static const struct {
        const char *old, *new, *says;
        dm_status status;
    } patches[] = {
        {"\"trainer.step\":\"2\"", "\"trainer.step\":\"x\"", "trainer.step", DM_ERROR_FORMAT},
        {"\"trainer.step\":", "\"trainer.stup\":", "trainer.step", DM_ERROR_FORMAT},
        {"\"trainer.epoch_loss\":\"0x", "\"trainer.epoch_loss\":\"1x", "trainer.epoch_loss", DM_ERROR_FORMAT},
        {"\"trainer.learning_rate\":\"0x3", "\"trainer.learning_rate\":\"0xb", "trainer.learning_rate",
         DM_ERROR_FORMAT},
        {"\"data.offset\":\"8\"", "\"data.offset\":\"-\"", "data.offset", DM_ERROR_FORMAT},
        {"\"data.offset\":\"8\"", "\"data.offsot\":\"8\"", "data.offset", DM_ERROR_FORMAT},
        {"\"libdiffusion.file_version\":\"1\"", "\"libdiffusion.file_version\":\"2\"", "version",
         DM_ERROR_VERSION},
        {"\"optimizer.v.net.0.weight\"", "\"optimizer.v.net.9.weight\"", "optimizer.v.net.0.weight",
         DM_ERROR_FORMAT},
        {"\"net.2.bias\"", "\"net.9.bias\"", "net.9.bias", DM_ERROR_FORMAT},
        {"\"scheduler.betas\"", "\"scheduler.beter\"", "scheduler.betas", DM_ERROR_FORMAT},
        {"\"options.batch\"", "\"options.botch\"", "options.batch", DM_ERROR_FORMAT},
    };
    rig r = rig_start(1, NULL, 0);
    rig_finish(&r);
    OK(dm_trainer_fit(r.trainer, r.data, 2));
    OK(dm_trainer_save(r.trainer, r.data, path));
    const bytes whole = read_file();
    float *before = copy_weights(r.net);
    for (size_t i = 0; i < sizeof patches / sizeof patches[0]; i++) {
        patch(&whole, patches[i].old, patches[i].new);
        FAILS(patches[i].status, patches[i].says, dm_trainer_resume(r.trainer, r.data, path));
        assert_memory_equal(before, r.net->weights, weight_bytes(r.net));
        assert_int_equal(r.data->offset, 8);
    }
    free(before);
    free(whole.data);
    rig_destroy(&r);
}

/* ---- network files ---- */

static void test_net_file(void **state) {
    (void)state;
    rig r = rig_start(1, NULL, 1);
    dm_net *loaded = NULL, *averaged = NULL;
    r.optimizer.ema_decay = 0.75;
    rig_finish(&r);
    OK(dm_trainer_fit(r.trainer, r.data, 3));
    OK(dm_net_save(r.net, path));
    OK(dm_net_load(r.context, path, 1, &loaded)); /* no EMA in the file: the weights */
    assert_string_equal(loaded->architecture, r.net->architecture);
    assert_memory_equal(loaded->weights, r.net->weights, weight_bytes(r.net));
    dm_net_destroy(loaded);
    OK(dm_trainer_save(r.trainer, NULL, path));
    OK(dm_net_load(r.context, path, 0, &loaded));
    OK(dm_net_load(r.context, path, 1, &averaged));
    assert_memory_equal(loaded->weights, r.net->weights, weight_bytes(r.net));
    assert_memory_equal(averaged->weights, r.trainer->optimizer->state[DMI_STATE_EMA], weight_bytes(r.net));
    const uint64_t version = atomic_load(&averaged->version);
    OK(dm_net_load_weights(averaged, path));
    assert_true(atomic_load(&averaged->version) > version);
    assert_memory_equal(averaged->weights, r.net->weights, weight_bytes(r.net));
    dm_net_destroy(loaded);
    dm_net_destroy(averaged);
    rig_destroy(&r);
}

/* Tensors of another program: other order and types, without metadata. */
static void test_foreign_weights(void **state) {
    (void)state;
    static const int32_t dims[2] = {3, 2};
    static const char *const names[3] = {"net.0.bias", "net.0.weight", "more"};
    const int64_t weight_shape[2] = {2, 3}, bias_shape[1] = {2};
    dm_net *net = make_mlp(NULL, 2, dims), *other = NULL;
    dm_tensor *weight = make_tensor(DM_DTYPE_F64, 2, weight_shape),
              *bias = make_tensor(DM_DTYPE_F32, 1, bias_shape);
    dm_tensor *turned = make_tensor(DM_DTYPE_F32, 2, (const int64_t[2]){3, 2});
    dm_tensor *integers = make_tensor(DM_DTYPE_I32, 1, bias_shape);
    for (int i = 0; i < 6; i++) ((double *)weight->data)[i] = i + 0.5;
    ((float *)bias->data)[1] = -3.0f;
    const dm_tensor *tensors[3] = {bias, weight, bias};
    OK(dm_safetensors_save(NULL, path, 2, names, tensors, 0, NULL, NULL));
    OK(dm_net_load_weights(net, path));
    const dm_tensor *loaded = dm_net_param(net, dm_net_find_param(net, "net.0.weight"));
    for (int i = 0; i < 6; i++)
        assert_true(((const float *)dm_tensor_const_data(loaded))[i] == (float)i + 0.5f);
    FAILS(DM_ERROR_FORMAT, "architecture", dm_net_load(NULL, path, 0, &other));
    assert_null(other);
    float *before = copy_weights(net);
    OK(dm_safetensors_save(NULL, path, 3, names, tensors, 0, NULL, NULL));
    FAILS(DM_ERROR_FORMAT, "1 not of this network: more", dm_net_load_weights(net, path));
    OK(dm_safetensors_save(NULL, path, 1, names, tensors, 0, NULL, NULL));
    FAILS(DM_ERROR_FORMAT, "1 missing: net.0.weight", dm_net_load_weights(net, path));
    tensors[1] = turned;
    OK(dm_safetensors_save(NULL, path, 2, names, tensors, 0, NULL, NULL));
    FAILS(DM_ERROR_SHAPE, "net.0.weight: expected f32 [2,3], got f32 [3,2]", dm_net_load_weights(net, path));
    tensors[1] = weight;
    tensors[0] = integers;
    OK(dm_safetensors_save(NULL, path, 2, names, tensors, 0, NULL, NULL));
    FAILS(DM_ERROR_DTYPE, "net.0.bias: expected f32 [2], got i32 [2]", dm_net_load_weights(net, path));
    assert_memory_equal(before, net->weights, weight_bytes(net));
    free(before);
    dm_tensor_destroy(weight);
    dm_tensor_destroy(bias);
    dm_tensor_destroy(turned);
    dm_tensor_destroy(integers);
    dm_net_destroy(net);
}

/* Weights of 16 bits in the library's own file. */
static void test_save_as(void **state) {
    (void)state;
    static const int32_t dims[3] = {3, 5, 2};
    static const struct {
        dm_dtype dtype;
        float step;
        const char *name;
    } types[] = {{DM_DTYPE_F32, 0, "F32"}, {DM_DTYPE_F16, 0x1p-10f, "F16"}, {DM_DTYPE_BF16, 0x1p-7f, "BF16"}};
    dm_net *net = make_mlp(NULL, 3, dims), *other = NULL;
    for (int i = 0; i < 3; i++) {
        dm_safetensors *file;
        OK(dm_net_save_as(net, path, types[i].dtype));
        OK(dm_safetensors_open(NULL, path, &file));
        assert_string_equal(dm_safetensors_dtype_name(file, 0), types[i].name);
        dm_safetensors_close(file);
        OK(dm_net_load(NULL, path, 0, &other));
        for (int64_t k = 0; k < net->flat_size; k++)
            assert_true(fabsf(other->weights[k] - net->weights[k]) <=
                        types[i].step / 2 * fabsf(net->weights[k]));
        dm_net_destroy(other);
    }
    FAILS(DM_ERROR_INVALID_ARGUMENT, "dtype: expected f32, f16 or bf16, got i32",
          dm_net_save_as(net, path, DM_DTYPE_I32));
    dm_net_destroy(net);
}

static void test_net_errors(void **state) {
    (void)state;
    static const char *const key[1] = {"architecture"}, *const nonsense[1] = {
                                                            "{\"architecture\": \"perpetuum\"}"};
    dm_net *net = make_mlp(NULL, 3, rig_dims), *loaded = net;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "net", dm_net_save(NULL, path));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "path", dm_net_save(net, NULL));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "path", dm_net_load_weights(net, NULL));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "net", dm_net_load_weights(NULL, path));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "out", dm_net_load(NULL, path, 0, NULL));
    FAILS(DM_ERROR_IO, "missing/file", dm_net_load(NULL, "missing/file", 0, &loaded));
    assert_null(loaded);
    OK(dm_safetensors_save(NULL, path, 0, NULL, NULL, 1, key, nonsense));
    assert_int_not_equal(dm_net_load(NULL, path, 0, &loaded), DM_OK);
    assert_null(loaded);
    assert_non_null(strstr(dm_last_error(), path));
    dm_net_destroy(net);
}

/* ---- memory ---- */

/* Each allocation of save, resume and load fails once; a failed save leaves the old file, a failed resume the
 * trainer. */
static void test_out_of_memory(void **state) {
    (void)state;
    failing_heap heap = {.fail_at = -1};
    rig r = rig_start(1, &heap, 0);
    dm_net *net = NULL;
    r.optimizer.ema_decay = 0.9;
    rig_finish(&r);
    OK(dm_trainer_save(r.trainer, r.data, path));
    OK(dm_trainer_fit(r.trainer, r.data, 2));
    float *trained = copy_weights(r.net);
    const int64_t live = heap.live;
    for (int call = 0; call < 3; call++) {
        int64_t n = 0;
        dm_status status = DM_ERROR_OUT_OF_MEMORY;
        for (; status != DM_OK; n++) {
            assert_memory_equal(trained, r.net->weights, weight_bytes(r.net));
            heap.fail_at = heap.calls + n;
            if (call == 0) status = dm_net_load(r.context, path, 1, &net);
            if (call == 1) status = dm_trainer_save(r.trainer, r.data, path);
            if (call == 2) status = dm_trainer_resume(r.trainer, r.data, path);
            heap.fail_at = -1;
            if (status == DM_OK) break;
            assert_int_equal(status, DM_ERROR_OUT_OF_MEMORY);
            assert_true(heap.live == live);
        }
        assert_true(n > 10);
        dm_net_destroy(net);
        net = NULL;
    }
    assert_int_equal(dm_trainer_num_steps(r.trainer), 2);
    free(trained);
    rig_destroy(&r);
    assert_true(heap.live == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resume),        cmocka_unit_test(test_learning_rate),
        cmocka_unit_test(test_fit_writes),    cmocka_unit_test(test_unwritable),
        cmocka_unit_test(test_mismatches),    cmocka_unit_test(test_resume_errors),
        cmocka_unit_test(test_truncated),     cmocka_unit_test(test_patched),
        cmocka_unit_test(test_net_file),      cmocka_unit_test(test_foreign_weights),
        cmocka_unit_test(test_save_as),       cmocka_unit_test(test_net_errors),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
