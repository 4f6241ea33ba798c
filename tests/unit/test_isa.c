/* DM_ISA caps the instruction set. It is read once a process, so every case is a child of one that never
 * looked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/core.h"
#include "diffusion.h"
#include "graph/session.h"
#include "kernels/kernels.h"
#include "random/noise.h"
#include "sde/hot/fused.h"

/* What one child saw. */
typedef struct sight {
    int32_t isa;      /* in use */
    int32_t agree;    /* a session, noise and SDEs run that one */
    char version[64]; /* dm_version_string() */
    char log[160];    /* the last warning */
} sight;

static void keep_warning(dm_log_level level, const char *message, void *user) {
    if (level == DM_LOG_WARNING) (void)snprintf(user, sizeof((sight *)0)->log, "%s", message);
}

/* The kernels that a session was given; NULL when it could not be made. */
static const void *session_kernels(dm_context *context) {
    dm_unet *net = NULL;
    dm_session *session = NULL;
    dm_unet_options widths;
    dm_session_options options;
    const void *kernels = NULL;
    dm_unet_options_init(&widths, sizeof widths);
    widths.num_levels = 2;
    widths.channels = (int32_t[]){8, 8};
    dm_session_options_init(&options, sizeof options);
    options.height = options.width = 8;
    if (dm_unet_create(context, &widths, &net) == DM_OK &&
        dm_session_create(net, &options, &session) == DM_OK)
        kernels = session->kernels;
    dm_session_destroy(session);
    dm_net_destroy(net);
    return kernels;
}

static sight look(void) {
    sight seen = {0};
    dm_context *context = NULL;
    dm_context_options options;
    dm_context_options_init(&options, sizeof options);
    options.log = keep_warning;
    options.log_user = seen.log;
    options.num_threads = 1;
    if (dm_context_create(&options, &context) != DM_OK) return seen;
    seen.isa = dmi_cpu_isa();
    seen.agree = session_kernels(context) == (const void *)dmi_kernels_for_f32(seen.isa) &&
                 dmi_fused_get() == dmi_fused_for(seen.isa) && dmi_noise_fill_for(seen.isa) != NULL &&
                 dmi_kernels_for_f32(seen.isa + 1) == NULL && dmi_fused_for(seen.isa + 1) == NULL &&
                 dmi_noise_fill_for(seen.isa + 1) == NULL;
    (void)snprintf(seen.version, sizeof seen.version, "%s", dm_version_string());
    dm_context_destroy(context);
    return seen;
}

/* Looks in a child whose DM_ISA is `word`, or not set. */
static sight look_with(const char *word) {
    sight seen = {0};
    int ends[2], result = -1;
    assert_int_equal(pipe(ends), 0);
    (void)fflush(NULL);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (word != NULL)
            setenv("DM_ISA", word, 1);
        else
            unsetenv("DM_ISA");
        seen = look();
        _exit(write(ends[1], &seen, sizeof seen) == (ssize_t)sizeof seen ? 0 : 1);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &seen, sizeof seen), sizeof seen);
    close(ends[0]);
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_int_equal(result, 0);
    assert_true(seen.agree);
    return seen;
}

/* As "(avx2, " in "0.1.0 (avx2, openblas)". */
static void assert_version(const sight *seen) {
    char part[32];
    (void)snprintf(part, sizeof part, " (%s, ", dmi_cpu_isa_name(seen->isa));
    if (strstr(seen->version, part) == NULL) fail_msg("\"%s\" lacks \"%s\"", seen->version, part);
}

static void test_caps(void **state) {
    static const struct {
        const char *word;
        int32_t isa;
    } caps[] = {
        {"base", DMI_ISA_BASE},
        {DMI_ISA_BASE_NAME, DMI_ISA_BASE},
#if defined(__x86_64__)
        {"avx2", DMI_ISA_AVX2},
        {"avx512", DMI_ISA_AVX512},
#endif
    };
    (void)state;
    const sight best = look_with(NULL);
    assert_version(&best);
    assert_string_equal(best.log, "");
    for (size_t i = 0; i < sizeof caps / sizeof caps[0]; i++) {
        const sight seen = look_with(caps[i].word);
        assert_int_equal(seen.isa, caps[i].isa < best.isa ? caps[i].isa : best.isa);
        assert_version(&seen);
        assert_string_equal(seen.log, "");
    }
}

static void test_unknown_words(void **state) {
    static const char *const words[] = {
        "avx",
        "AVX2",
        "avx2 ",
        "none",
#if !defined(__x86_64__)
        "sse2",
        "avx2",
        "avx512",
#endif
        "7"
    };
    (void)state;
    const sight best = look_with(NULL), empty = look_with("");
    assert_int_equal(empty.isa, best.isa);
    assert_string_equal(empty.log, "");
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        const sight seen = look_with(words[i]);
        char expected[160];
        (void)snprintf(expected, sizeof expected,
                       "DM_ISA (environment): expected " DMI_ISA_WORDS ", got \"%s\"; %s is used", words[i],
                       dmi_cpu_isa_name(best.isa));
        assert_int_equal(seen.isa, best.isa);
        assert_string_equal(seen.log, expected);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_caps),
        cmocka_unit_test(test_unknown_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
