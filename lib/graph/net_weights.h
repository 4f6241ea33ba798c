/* Filling a network's parameters from named tensors. */
#ifndef DMI_NET_WEIGHTS_H
#define DMI_NET_WEIGHTS_H

#include "graph/net.h"
#include "io/weights.h"

/* What the tensors are called, other than the parameters. */
typedef struct dmi_weight_names {
    const char *prefix;         /* that all parameters' tensors have, NULL: none */
    const char *const *ignored; /* [num_ignored] beginnings of names that are no parameters of this network */
    int32_t num_ignored;
    /* A second spelling of a parameter, in `alias`, of `size` bytes; 0: there is none. May be NULL. A tensor
     * beside the one of the first spelling is no other parameter if it has the same numbers. */
    int (*alias)(const char *name, char *alias, size_t size);
} dmi_weight_names;

/* Every parameter must have its tensor, in its shape and of a floating-point type, and every tensor must be
 * one. Otherwise the message names all that are wrong, as far as it has room, and counts the rest: FORMAT
 * when tensors are missing or too many, else DTYPE or SHAPE; then no parameter has changed. The tensors go
 * from the file to the parameters without a copy between. `source` begins the message, `names` may be NULL.
 */
dm_status dmi_net_read_weights(dm_net *net, const dmi_weights *weights, const char *source,
                               const dmi_weight_names *names);

#endif
