/* Small networks, data and an allocator that can fail, shared by the tests of training. */
#ifndef TRAIN_FIXTURE_H
#define TRAIN_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "diffusion.h"
#include "graph/session.h"
#include "random/random.h"
#include "train/train.h"

#define OK(call)                                                                                             \
    do {                                                                                                     \
        const dm_status ok_status_ = (call);                                                                 \
        if (ok_status_ != DM_OK) fail_msg("%s: %s: %s", #call, dm_status_name(ok_status_), dm_last_error()); \
    } while (0)

/* The call fails with this status and a message that contains `text`. */
#define FAILS(expected, text, call)                                                                          \
    do {                                                                                                     \
        assert_int_equal((call), expected);                                                                  \
        if (strstr(dm_last_error(), text) == NULL)                                                           \
            fail_msg("%s: \"%s\" does not say \"%s\"", #call, dm_last_error(), text);                        \
    } while (0)

/* Allocation number fail_at (from 0) and all later ones return NULL; -1: none does. */
typedef struct failing_heap {
    int64_t calls, fail_at, live;
} failing_heap;

static inline void *heap_alloc(uint64_t bytes, uint64_t alignment, void *user) {
    failing_heap *heap = user;
    void *memory = NULL;
    if (heap->fail_at >= 0 && heap->calls >= heap->fail_at) {
        heap->calls++;
        return NULL;
    }
    heap->calls++;
    if (posix_memalign(&memory, alignment, bytes) != 0) return NULL;
    heap->live++;
    return memory;
}

static inline void heap_free(void *pointer, uint64_t bytes, void *user) {
    (void)bytes;
    ((failing_heap *)user)->live--;
    free(pointer);
}

static inline dm_context *make_context(int32_t threads, failing_heap *heap) {
    dm_context *context = NULL;
    dm_context_options options;
    dm_context_options_init(&options, sizeof options);
    options.num_threads = threads;
    if (heap != NULL) {
        options.alloc = heap_alloc;
        options.free = heap_free;
        options.alloc_user = heap;
    }
    OK(dm_context_create(&options, &context));
    return context;
}

static inline dm_status create_mlp(dm_context *context, int32_t num_dims, const int32_t *dims, dm_net **net) {
    dm_mlp_options options;
    dm_mlp_options_init(&options, sizeof options);
    options.num_dims = num_dims;
    options.dims = dims;
    options.hidden = DM_ACTIVATION_TANH;
    options.final = DM_ACTIVATION_NONE;
    options.seed = 5;
    return dm_mlp_create(context, &options, net);
}

static inline dm_net *make_mlp(dm_context *context, int32_t num_dims, const int32_t *dims) {
    dm_net *net = NULL;
    OK(create_mlp(context, num_dims, dims, &net));
    return net;
}

/* Conditioned on time and on three classes; for 8 x 8 images. */
static inline dm_status create_unet(dm_context *context, dm_net **net) {
    static const int32_t channels[2] = {4, 8};
    dm_unet_options options;
    dm_unet_options_init(&options, sizeof options);
    options.num_levels = 2;
    options.channels = channels;
    options.num_middle_blocks = 1;
    options.time = DM_TIME_SINUSOIDAL;
    options.time_dim = 8;
    options.num_classes = 3;
    options.seed = 3;
    return dm_unet_create(context, &options, net);
}

static inline dm_net *make_unet(dm_context *context) {
    dm_net *net = NULL;
    OK(create_unet(context, &net));
    return net;
}

/* Makes the trainer pass its batch through the network in pieces of so many images. */
static inline void cut_batch(dm_trainer *trainer, int32_t images) {
    dm_session_options options = trainer->session->options;
    options.batch = (int32_t)trainer->shape[0];
    dmi_objective_destroy(trainer);
    dm_session_destroy(trainer->session);
    OK(dmi_session_create_pieces(trainer->net, &options, images, &trainer->session));
    OK(dmi_objective_create(trainer));
}

static inline dm_scheduler *make_scheduler(dm_context *context, dm_prediction_type prediction) {
    dm_scheduler *scheduler = NULL;
    dm_scheduler_options options;
    dm_scheduler_options_init(&options, sizeof options);
    options.num_train_timesteps = 100;
    options.prediction_type = prediction;
    OK(dm_scheduler_create(context, &options, &scheduler));
    return scheduler;
}

static inline dm_tensor *make_tensor(dm_dtype dtype, int32_t rank, const int64_t *shape) {
    dm_tensor *tensor = NULL;
    OK(dm_tensor_create(NULL, dtype, rank, shape, &tensor));
    return tensor;
}

static inline dm_tensor *make_normal(uint64_t seed, int32_t rank, const int64_t *shape) {
    dm_tensor *tensor = make_tensor(DM_DTYPE_F32, rank, shape);
    dm_rng *rng = NULL;
    OK(dm_rng_create(NULL, seed, 0, &rng));
    OK(dm_rng_normal(rng, tensor));
    dm_rng_destroy(rng);
    return tensor;
}

/* Images [n,1,side,side] u8 that depend on their label, i % 3. */
static inline dm_tensor *make_images(int64_t n, int64_t side, dm_tensor **labels) {
    const int64_t shape[4] = {n, 1, side, side};
    dm_tensor *images = make_tensor(DM_DTYPE_U8, 4, shape);
    *labels = make_tensor(DM_DTYPE_U8, 1, shape);
    uint8_t *pixel = images->data, *label = (*labels)->data;
    for (int64_t i = 0; i < n; i++) {
        label[i] = (uint8_t)(i % 3);
        for (int64_t p = 0; p < side * side; p++) *pixel++ = (uint8_t)((i * 37 + p * (1 + i % 3) * 11) % 256);
    }
    return images;
}

/* A file of this process in the working directory. */
static inline void temporary_path(char *path, size_t size, const char *name) {
    (void)snprintf(path, size, "train_%ld_%s", (long)getpid(), name);
}

/* A network on 4 x 4 images as vectors, or the UNet on 8 x 8 images, and all that trains it. */
typedef struct rig {
    dm_context *context;
    dm_net *net;
    dm_scheduler *scheduler;
    dm_tensor *images, *labels;
    dm_dataset *data;
    dm_trainer *trainer;
    dm_trainer_options options;
    dm_optimizer_options optimizer;
} rig;

enum { RIG_IMAGES = 22 };
static const int32_t rig_dims[3] = {16, 24, 16};

/* Fill, change the options, then rig_finish(). */
static inline rig rig_start(int32_t threads, failing_heap *heap, int unet) {
    rig r = {.context = make_context(threads, heap)};
    r.net = unet ? make_unet(r.context) : make_mlp(r.context, 3, rig_dims);
    r.scheduler = make_scheduler(r.context, DM_PREDICTION_EPSILON);
    r.images = make_images(RIG_IMAGES, unet ? 8 : 4, &r.labels);
    OK(dm_dataset_create(r.context, r.images, r.labels, 11, &r.data));
    dm_trainer_options_init(&r.options, sizeof r.options);
    dm_optimizer_options_init(&r.optimizer, sizeof r.optimizer);
    r.options.batch = 4;
    r.options.height = r.options.width = unet ? 8 : 4;
    r.options.seed = 99;
    r.optimizer.learning_rate = 0.01;
    return r;
}

static inline void rig_finish(rig *r) {
    r->options.optimizer = &r->optimizer;
    OK(dm_trainer_create(r->net, r->scheduler, &r->options, &r->trainer));
    r->options.optimizer = NULL;
}

static inline void rig_destroy(rig *r) {
    dm_trainer_destroy(r->trainer);
    dm_dataset_destroy(r->data);
    dm_scheduler_destroy(r->scheduler);
    dm_net_destroy(r->net);
    dm_tensor_destroy(r->images);
    dm_tensor_destroy(r->labels);
    dm_context_destroy(r->context);
}

static inline size_t weight_bytes(const dm_net *net) {
    return (size_t)net->flat_size * sizeof(float);
}

static inline float *copy_weights(const dm_net *net) {
    float *copy = malloc(weight_bytes(net));
    assert_non_null(copy);
    memcpy(copy, net->weights, weight_bytes(net));
    return copy;
}

/* What a progress callback saw, and when it is to stop the run. */
typedef struct diary {
    int count;
    int64_t stop_at, cancel_at; /* steps; 0: never */
    dm_trainer *trainer;
    dm_train_progress entries[64];
} diary;

static inline int32_t keep_diary(const dm_train_progress *progress, void *user) {
    diary *d = user;
    assert_int_equal(progress->struct_size, sizeof *progress);
    assert_true(d->count < 64);
    d->entries[d->count++] = *progress;
    if (progress->step == d->cancel_at) dm_trainer_cancel(d->trainer);
    return progress->step == d->stop_at ? 7 : 0;
}

#endif
