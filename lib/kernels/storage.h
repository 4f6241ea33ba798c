/* How the values of a graph are stored: as reals, or in the f32 engine some as bf16, the upper half of a
 * float. Which of an operation's values are bf16 is a set of these bits. */
#ifndef DMI_STORAGE_H
#define DMI_STORAGE_H

enum { DMI_BF16_IN0 = 1, DMI_BF16_IN1 = 2, DMI_BF16_IN2 = 4, DMI_BF16_OUT = 8 };

#endif
