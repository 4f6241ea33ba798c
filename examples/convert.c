/* Converts a network between the files of this library and those of others.
 *
 *   diffusers            a directory: config.json, diffusion_pytorch_model.safetensors (or several, with an
 * index) guided-diffusion     a state_dict saved as safetensors, read only; see docs/checkpoints.md this
 * library         one file, "*.safetensors", which train_unet and dm_net_save() write
 *
 * What --from is shows in its content. --to is a file of this library when it ends in ".safetensors", else a
 * directory that diffusers opens with UNet2DModel.from_pretrained(). */
#include <diffusion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "args.h"
#include "common.h"

static const char about[] =
    "Converts a network: a directory of diffusers, weights of guided-diffusion or a file of this\n"
    "library to a directory of diffusers or a file of this library.";

static struct {
    const char *from, *to, *dtype, *variant, *to_variant, *order;
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
    NUMBER("size", &o.size, 0, 65536, "side of the images, for config.json, 0: leave it open"),
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

static void save_directory(const dm_net *net, dm_dtype dtype) {
    dm_pretrained_save_options how;
    dm_pretrained_save_options_init(&how, sizeof how);
    how.dtype = dtype;
    how.max_shard_bytes = (int64_t)o.shard * 1000000;
    how.sample_size = o.size;
    how.variant = o.to_variant;
    check(dm_unet_save_pretrained(net, o.to, &how));
}

static bool is_file_name(const char *path) {
    static const char ending[] = ".safetensors";
    const size_t length = strlen(path), tail = sizeof ending - 1;
    return length > tail && strcmp(path + length - tail, ending) == 0;
}

int main(int argc, char **argv) {
    ARGS_PARSE(argc, argv, about, options);
    if (o.from == NULL || o.to == NULL)
        args_error("--from and --to: expected what to read and what to write");
    const dm_dtype dtype = dm_dtype_from_name(o.dtype);
    dm_context *context = make_context(0);
    dm_net *net = load(context);
    printf("%s: %" PRId64 " weights in %d tensors\n", o.from, dm_net_num_weights(net),
           (int)dm_net_num_params(net));
    if (is_file_name(o.to))
        check(dm_net_save_as(net, o.to, dtype));
    else
        save_directory(net, dtype);
    printf("wrote %s\n", o.to);
    dm_net_destroy(net);
    dm_context_destroy(context);
    return 0;
}
