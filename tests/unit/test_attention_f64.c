/* test_attention.c in double precision. */
#define DMI_REAL_BITS 64
#include "test_attention.c"
