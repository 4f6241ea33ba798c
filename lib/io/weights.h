/* Named tensors of one safetensors file, or of several with an index:
 *
 *     model.safetensors.index.json
 *     {"metadata": {"total_size": 176},
 *      "weight_map": {"conv_in.weight": "model-00001-of-00002.safetensors", ...}}
 *
 * The files lie beside the index and stay mapped until the set is closed. */
#ifndef DMI_WEIGHTS_H
#define DMI_WEIGHTS_H

#include "core/core.h"
#include "diffusion/io.h"

typedef struct dmi_weights dmi_weights;

/* A file, or an index when `path` ends in ".json". FORMAT: an index that is none; a shard whose name is not
 * that of a file beside it; a tensor that its shard does not have; a tensor of a shard that the index does
 * not place there. */
dm_status dmi_weights_open(dm_context *context, const char *path, dmi_weights **out);
/* The same from the text of an index that lies, or might lie, at `path`. */
dm_status dmi_weights_parse_index(dm_context *context, const char *text, size_t size, const char *path,
                                  dmi_weights **out);
void dmi_weights_close(dmi_weights *weights);

/* Tensors are numbered in the order of their names. */
int32_t dmi_weights_count(const dmi_weights *weights);
const char *dmi_weights_name(const dmi_weights *weights, int32_t index);
int32_t dmi_weights_find(const dmi_weights *weights, const char *name);
/* Type as which it is read, and shape; its data must not be touched. NULL when it cannot be read. */
const dm_tensor *dmi_weights_layout(const dmi_weights *weights, int32_t index);
/* dm_safetensors_read(). */
dm_status dmi_weights_read(const dmi_weights *weights, int32_t index, dm_tensor *out);
/* Of the first file that has the key; NULL: none has. */
const char *dmi_weights_metadata(const dmi_weights *weights, const char *key);

#endif
