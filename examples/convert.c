/* Converts a network between the files of this library and those of others:
 *
 *   diffusers          a directory: config.json, scheduler_config.json, and the weights as
 *                      diffusion_pytorch_model.safetensors or several such files with an index
 *   guided-diffusion   a state_dict saved as safetensors, read only; see docs/checkpoints.md
 *   this library       one file, "*.safetensors", of training (with the noise schedule in it) or of
 *                      dm_net_save()
 *
 * What --from is shows in its content. --to is a file of this library when it ends in ".safetensors", else a
 * directory that diffusers opens with UNet2DModel.from_pretrained(). The noise schedule goes along as
 * scheduler_config.json, in the directory or beside the file, where `sample` finds it. */
#include <diffusion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "common.h"
#include "model.h"

static const char about[] =
    "Converts a network: a directory of diffusers, weights of guided-diffusion or a file of this\n"
    "library to a directory of diffusers or a file of this library.";

static struct {
    const char *from, *to, *dtype, *variant, *to_variant, *order, *sampler;
    int32_t shard, size, heads, head_channels;
    bool ema, null_class;
} o = {.dtype = "f32", .order = "new", .ema = true};

static const args_option options[] = {
    TEXT("from", &o.from, "directory or file to read"),
    TEXT("to", &o.to, "directory, or file that ends in .safetensors, to write"),
    CHOICE("dtype", &o.dtype, "f32|f16|bf16", "type of the weights that are written"),
    TEXT("variant", &o.variant, "read the directory's weights of that variant, such as fp16"),
    TEXT("to-variant", &o.to_variant, "write weights of that variant"),
    NUMBER("shard", &o.shard, 0, 1000000, "megabytes a file of a directory holds, 0: one file"),
    NUMBER("size", &o.size, 0, 65536,
           "side of the images, for config.json, 0: of the checkpoint, if it tells"),
    TEXT("sampler", &o.sampler,
         "algorithm that scheduler_config.json names (default: as it was; of a checkpoint ddpm, dpmpp_2m for "
         "EDM, "
         "euler for flow matching)"),
    FLAG("ema", &o.ema, "averaged weights, when a file of this library has them"),
    NUMBER("heads", &o.heads, 0, 1024, "guided-diffusion: num_heads, where head-channels is 0"),
    NUMBER("head-channels", &o.head_channels, 0, 16384, "guided-diffusion: num_head_channels"),
    CHOICE("attention-order", &o.order, "new|legacy", "guided-diffusion: use_new_attention_order or not"),
    FLAG("null-class", &o.null_class, "guided-diffusion: the last row of the classes is \"no class\""),
};

static dm_net *load(dm_context *context) {
    dm_pretrained_options how;
    dm_adm_options adm;
    dm_net *net;
    dm_pretrained_options_init(&how, sizeof how);
    how.variant = o.variant;
    how.use_ema = o.ema;
    if (o.heads > 0 || o.head_channels > 0) {
        dm_adm_options_init(&adm, sizeof adm);
        adm.num_heads = o.heads > 0 ? o.heads : 1;
        adm.num_head_channels = o.head_channels;
        adm.attention_order = dm_adm_attention_order_from_name(o.order);
        adm.has_null_class = o.null_class;
        how.adm = &adm;
    }
    check(dm_unet_load_pretrained(context, o.from, &how, &net));
    return net;
}

/* Height of the images that a checkpoint was trained on, 0: not square, or not told. */
static int32_t size_of(dm_context *context) {
    dm_safetensors *file;
    if (is_directory(o.from)) return model_sample_size(o.from);
    check(dm_safetensors_open(context, o.from, &file));
    const char *height = dm_safetensors_get_metadata(file, "options.height");
    const char *width = dm_safetensors_get_metadata(file, "options.width");
    const bool is_square = height != NULL && width != NULL && strcmp(height, width) == 0;
    const long size = is_square ? strtol(height, NULL, 10) : 0;
    dm_safetensors_close(file);
    return size > 0 && size <= 65536 ? (int32_t)size : 0;
}

static void save_directory(dm_context *context, const dm_net *net, dm_dtype dtype) {
    dm_pretrained_save_options how;
    dm_pretrained_save_options_init(&how, sizeof how);
    how.dtype = dtype;
    how.max_shard_bytes = (int64_t)o.shard * 1000000;
    how.sample_size = o.size > 0 ? o.size : size_of(context);
    how.variant = o.to_variant;
    check(dm_unet_save_pretrained(net, o.to, &how));
}

static bool is_file_name(const char *path) {
    static const char ending[] = ".safetensors";
    const size_t length = strlen(path), tail = sizeof ending - 1;
    return length > tail && strcmp(path + length - tail, ending) == 0;
}

/* The process that came with the network, if one did. */
static void save_process(dm_context *context) {
    dm_scheduler *scheduler;
    process p = process_of(context, o.from);
    const path folder = is_file_name(o.to) ? directory_of(o.to) : path_in(o.to, "");
    const path file = path_in(folder.text, "scheduler_config.json");
    const bool is_checkpoint = p.is_found && !is_directory(o.from) && p.options.sampler == DM_SAMPLER_DDIM;
    if (is_checkpoint) p.options.sampler = DM_SAMPLER_DDPM; /* which has the learned variances too */
    if (o.sampler != NULL) p.options.sampler = dm_sampler_from_name(o.sampler);
    if (p.is_found) {
        if (dm_scheduler_create(context, &p.options, &scheduler) != DM_OK)
            args_error("--sampler: %s", dm_last_error());
        if (dm_scheduler_save_pretrained(scheduler, file.text) == DM_OK)
            printf("wrote %s\n", file.text);
        else if (o.sampler != NULL)
            args_error("--sampler: %s", dm_last_error());
        else
            fprintf(stderr, "%s: no scheduler_config.json: %s\n", program_name(), dm_last_error());
        dm_scheduler_destroy(scheduler);
    }
    process_free(&p);
}

int main(int argc, char **argv) {
    ARGS_PARSE(argc, argv, about, options);
    if (o.from == NULL || o.to == NULL)
        args_error("--from and --to: expected what to read and what to write");
    if (o.sampler != NULL && dm_sampler_from_name(o.sampler) == 0)
        args_error("--sampler: expected a name such as ddim or euler_a, got \"%s\"", o.sampler);
    const dm_dtype dtype = dm_dtype_from_name(o.dtype);
    dm_context *context = make_context(0);
    dm_net *net = load(context);
    make_directory(directory_of(o.to).text);
    printf("%s: %" PRId64 " weights in %d tensors\n", o.from, dm_net_num_weights(net),
           (int)dm_net_num_params(net));
    if (is_file_name(o.to))
        check(dm_net_save_as(net, o.to, dtype));
    else
        save_directory(context, net, dtype);
    printf("wrote %s\n", o.to);
    save_process(context);
    dm_net_destroy(net);
    dm_context_destroy(context);
    return 0;
}
