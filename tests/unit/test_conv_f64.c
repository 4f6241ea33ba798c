/* test_conv.c in double precision. */
#define DMI_REAL_BITS 64
#include "test_conv.c"
