#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "io/plot.h"

#define VALUE_MAX     1e300
#define LOG_VALUE_MIN 1e-300
/* A range below this share of its values is widened: the ticks' digits stay within a double's. */
#define RELATIVE_RANGE_MIN 1e-9

void dmi_axis_init(dmi_axis *axis, int32_t logarithmic) {
    memset(axis, 0, sizeof *axis);
    axis->logarithmic = logarithmic;
    axis->empty = 1;
}

int dmi_axis_shows(const dmi_axis *axis, double value) {
    return isfinite(value) && fabs(value) <= VALUE_MAX && (!axis->logarithmic || value >= LOG_VALUE_MIN);
}

void dmi_axis_include(dmi_axis *axis, double value) {
    if (!dmi_axis_shows(axis, value)) return;
    double position = axis->logarithmic ? log10(value) : value;
    if (axis->empty || position < axis->low) axis->low = position;
    if (axis->empty || position > axis->high) axis->high = position;
    axis->empty = 0;
}

double dmi_axis_map(const dmi_axis *axis, double value) {
    double position = axis->logarithmic ? log10(value) : value;
    return axis->begin + (axis->end - axis->begin) * ((position - axis->low) / (axis->high - axis->low));
}

/* Digits of a number with `decimals` of them behind the point, which is always '.'. */
static void format_fixed(int64_t number, int32_t decimals, char *text, size_t size) {
    char digits[48];
    uint64_t magnitude = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    int length = snprintf(digits, sizeof digits, "%0*" PRIu64, (int)decimals + 1, magnitude);
    int whole = length - (int)decimals;
    snprintf(text, size, "%s%.*s%s%s", number < 0 ? "-" : "", whole, digits, decimals > 0 ? "." : "",
             digits + whole);
}

void dmi_format_decimal(int64_t number, int32_t exponent, char *text, size_t size) {
    if (number == 0) exponent = 0;
    while (number != 0 && number % 10 == 0) {
        number /= 10;
        exponent++;
    }
    int32_t digits = 0;
    for (int64_t rest = number; rest != 0; rest /= 10) digits++;
    int32_t leading = exponent + digits - 1; /* of the first digit */
    if (exponent >= 0 && leading < 6) {
        for (; exponent > 0; exponent--) number *= 10;
        format_fixed(number, 0, text, size);
    } else if (exponent < 0 && leading >= -4) {
        format_fixed(number, -exponent, text, size);
    } else {
        char mantissa[DMI_TICK_TEXT];
        format_fixed(number, digits - 1, mantissa, sizeof mantissa);
        snprintf(text, size, "%se%d", mantissa, leading);
    }
}

static void add_tick(dmi_axis *axis, double value, int64_t number, int32_t exponent, int32_t minor) {
    if (axis->tick_count == DMI_TICKS_MAX) return;
    dmi_tick *tick = &axis->ticks[axis->tick_count++];
    tick->value = value;
    tick->minor = minor;
    dmi_format_decimal(number, exponent, tick->text, sizeof tick->text);
}

/* Steps are 1, 2 or 5 times a power of ten; a tick is the integer k of them, so its text is exact. */
static void add_linear_ticks(dmi_axis *axis, double low, double high, int32_t wanted) {
    double raw = (high - low) / wanted;
    int32_t exponent = (int32_t)floor(log10(raw));
    double lead = raw / pow(10.0, exponent);
    int64_t mantissa = lead <= 1.0 ? 1 : lead <= 2.0 ? 2 : lead <= 5.0 ? 5 : 10;
    double step = (double)mantissa * pow(10.0, exponent), slack = 1e-9 * (high - low) / step;
    double first = ceil(low / step - slack), last = floor(high / step + slack);
    for (double k = first; k <= last; k += 1.0) {
        int64_t number = (int64_t)k * mantissa;
        double value =
            exponent < 0 ? (double)number / pow(10.0, -exponent) : (double)number * pow(10.0, exponent);
        add_tick(axis, value, number, exponent, 0);
    }
}

/* Powers of ten, at most about `wanted` of them, with 2..9 between them as minor ticks when there is room. */
static void add_decades(dmi_axis *axis, int32_t wanted) {
    int32_t first = (int32_t)floor(axis->low), last = (int32_t)floor(axis->high);
    int32_t powers = last - (int32_t)ceil(axis->low) + 1, stride = (powers + wanted - 1) / wanted;
    for (int32_t decade = first; decade <= last; decade++) {
        for (int64_t k = 1; k <= 9; k++) {
            double position = decade + log10((double)k);
            if (position < axis->low || position > axis->high) continue;
            if (k == 1 && decade % stride == 0)
                add_tick(axis, pow(10.0, decade), 1, decade, 0);
            else if (powers <= 6)
                add_tick(axis, (double)k * pow(10.0, decade), k, decade, 1);
        }
    }
}

void dmi_axis_finish(dmi_axis *axis, int32_t wanted_ticks) {
    if (axis->empty) {
        axis->low = 0.0;
        axis->high = 1.0;
    }
    double magnitude = fmax(fabs(axis->low), fabs(axis->high)), range = axis->high - axis->low;
    if (range <= RELATIVE_RANGE_MIN * magnitude || range <= 1e-300) {
        double wider = axis->logarithmic ? 0.5 : magnitude > 1e-290 ? 0.05 * magnitude : 1.0;
        axis->low -= wider;
        axis->high += wider;
        range = axis->high - axis->low;
    }
    double room = 0.03 * range;
    axis->low -= room;
    axis->high += room;
    /* Less than a decade and a half has too few powers of ten to read values by. */
    if (axis->logarithmic && axis->high - axis->low >= 1.5)
        add_decades(axis, wanted_ticks);
    else if (axis->logarithmic)
        add_linear_ticks(axis, pow(10.0, axis->low), pow(10.0, axis->high), wanted_ticks);
    else
        add_linear_ticks(axis, axis->low, axis->high, wanted_ticks);
}
