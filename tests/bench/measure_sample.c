/* sample: dm_sampler_run() with DDIM, from seeds to images: a batch, and the latency of one image. */
#include <stdio.h>

#include "bench.h"
#include "flops.h"

typedef struct sampling {
    dm_sampler *sampler;
    dm_tensor *labels, *out;
} sampling;

static void run(void *user) {
    const sampling *s = user;
    bench_check(dm_sampler_run(s->sampler, NULL, s->labels, NULL, s->out));
}

static double flops_of_an_image(const bench *b, const dm_net *net) {
    dm_session *session = bench_create_session(b, net, DM_SESSION_INFER, 1);
    const double flops = bench_forward_flops(session);
    dm_session_destroy(session);
    return flops;
}

static void sample(bench *b, const dm_net *net, int32_t images, const char *what) {
    const int64_t shape[] = {images, dm_net_in_channels(net), b->side, b->side};
    dm_scheduler *scheduler = bench_create_scheduler(b, DM_SAMPLER_DDIM);
    dm_sampler_options options;
    bench_result result = {.batch = images, .images = images};
    sampling s = {.labels = bench_labels(b, net, images), .out = bench_normal(b, 4, shape, 1)};
    dm_sampler_options_init(&options, sizeof options);
    options.num_inference_steps = b->steps;
    options.storage_dtype = b->storage;
    bench_check(dm_sampler_create_net(b->context, scheduler, net, &options, &s.sampler));
    result.flops = flops_of_an_image(b, net) * images * b->steps;
    (void)snprintf(result.name, sizeof result.name, "sample ddim-%d %s", (int)b->steps, what);
    bench_time(b, &result, run, &s);
    dm_sampler_destroy(s.sampler);
    dm_scheduler_destroy(scheduler);
    dm_tensor_destroy(s.labels);
    dm_tensor_destroy(s.out);
}

void bench_sample(bench *b) {
    dm_net *net = bench_create_net(b);
    sample(b, net, 1, "latency");
    sample(b, net, b->batch, "throughput");
    dm_net_destroy(net);
}
