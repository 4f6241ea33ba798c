/* A progress bar on stderr: one line that is rewritten on a terminal, a line every few seconds elsewhere. */
#ifndef EXAMPLES_PROGRESS_H
#define EXAMPLES_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct progress_bar {
    bool terminal, shown;
    double began, last; /* times */
    int64_t first;      /* done when the bar began */
} progress_bar;

/* `done`: what an earlier run has done already. */
void progress_begin(progress_bar *bar, int64_t done);
/* done of total, a text of the caller, and the time left at the speed so far. */
void progress_show(progress_bar *bar, int64_t done, int64_t total, const char *format, ...);
/* Removes the bar, before something else is printed. */
void progress_clear(progress_bar *bar);

#endif
