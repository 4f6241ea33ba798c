/* Axes of a plot: which numbers are shown, where, and how they are written. */
#ifndef DMI_PLOT_H
#define DMI_PLOT_H

#include "core/core.h"

enum { DMI_TICKS_MAX = 64, DMI_TICK_TEXT = 32 };

typedef struct dmi_tick {
    double value;
    int32_t minor;            /* a grid line without text */
    char text[DMI_TICK_TEXT]; /* the same in every locale */
} dmi_tick;

typedef struct dmi_axis {
    int32_t logarithmic;
    double low, high;  /* shown range, low < high; log10 of it when logarithmic */
    double begin, end; /* where low and high lie in the picture */
    int32_t empty;     /* no value yet */
    int32_t tick_count;
    dmi_tick ticks[DMI_TICKS_MAX];
} dmi_axis;

void dmi_axis_init(dmi_axis *axis, int32_t logarithmic);
/* 1 when the axis can show the value: finite, at most 1e300 in size, at least 1e-300 when logarithmic. */
int dmi_axis_shows(const dmi_axis *axis, double value);
/* Widens the range to hold the value, when the axis can show it. */
void dmi_axis_include(dmi_axis *axis, double value);
/* Settles the range and its ticks, after the last include. */
void dmi_axis_finish(dmi_axis *axis, int32_t wanted_ticks);
/* Position in the picture. */
double dmi_axis_map(const dmi_axis *axis, double value);

/* number * 10^exponent, written exactly: "0.25", "-3", "1.5e8". */
void dmi_format_decimal(int64_t number, int32_t exponent, char *text, size_t size);

#endif
