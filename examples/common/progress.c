#include "progress.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common.h"

enum { BAR_WIDTH = 24 };

void progress_begin(progress_bar *bar, int64_t done) {
    *bar = (progress_bar){.terminal = isatty(STDERR_FILENO) != 0, .began = now(), .first = done};
    bar->last = bar->terminal ? 0.0 : bar->began;
}

static void print_time(double seconds) {
    const int64_t whole = (int64_t)(seconds + 0.5);
    const int h = (int)(whole / 3600), m = (int)(whole / 60 % 60), s = (int)(whole % 60);
    if (h > 0)
        fprintf(stderr, "%d:%02d:%02d left", h, m, s);
    else
        fprintf(stderr, "%d:%02d left", m, s);
}

void progress_show(progress_bar *bar, int64_t done, int64_t total, const char *format, ...) {
    va_list args;
    char cells[BAR_WIDTH + 1];
    const double time = now(), every = bar->terminal ? 0.1 : 5.0;
    if (time - bar->last < every && !(bar->terminal && done >= total)) return;
    bar->last = time;
    const int64_t full = total > 0 ? done * BAR_WIDTH / total : BAR_WIDTH;
    for (int i = 0; i < BAR_WIDTH; i++) cells[i] = i < full ? '#' : '.';
    cells[BAR_WIDTH] = '\0';
    fprintf(stderr, "%s[%s] %" PRId64 "/%" PRId64 "  ", bar->terminal ? "\r\033[K" : "", cells, done, total);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    if (done > bar->first && done < total) {
        fprintf(stderr, "  ");
        print_time((time - bar->began) * (double)(total - done) / (double)(done - bar->first));
    }
    if (!bar->terminal) fprintf(stderr, "\n");
    fflush(stderr);
    bar->shown = true;
}

void progress_clear(progress_bar *bar) {
    if (bar->shown && bar->terminal) fprintf(stderr, "\r\033[K");
    fflush(stderr);
    bar->shown = false;
}
