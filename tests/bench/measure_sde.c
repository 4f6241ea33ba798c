/* sde: the simulation of stochastic differential equations, in libraries that have it. */
#include <stdio.h>

#include "bench.h"

void bench_sde(bench *b) {
    (void)b;
#if __has_include("diffusion/sde.h")
    printf("{\"name\": \"sde\", \"built\": true, \"measured\": false}\n");
#else
    printf("{\"name\": \"sde\", \"built\": false, \"measured\": false}\n");
#endif
}
