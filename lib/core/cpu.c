#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_getaffinity */
#endif
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#endif

#include "core/context_impl.h"

static int detect_isa(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return DMI_ISA_BASE;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        return DMI_ISA_AVX512;
    }
    return DMI_ISA_AVX2;
#else
    return DMI_ISA_BASE;
#endif
}

static int isa_of(const char *word) {
    if (strcmp(word, "base") == 0 || strcmp(word, DMI_ISA_BASE_NAME) == 0) return DMI_ISA_BASE;
#if defined(__x86_64__)
    if (strcmp(word, "avx2") == 0) return DMI_ISA_AVX2;
    if (strcmp(word, "avx512") == 0) return DMI_ISA_AVX512;
#endif
    return -1;
}

static int isa_cap(void) {
    const char *word = getenv("DM_ISA");
    const int isa = word != NULL ? isa_of(word) : -1;
    return isa < 0 ? DMI_ISA_AVX512 : isa;
}

const char *dmi_cpu_isa_unknown(void) {
    const char *word = getenv("DM_ISA");
    return word == NULL || word[0] == 0 || isa_of(word) >= 0 ? NULL : word;
}

int dmi_cpu_isa(void) {
    static _Atomic int cached = -1;
    int isa = atomic_load_explicit(&cached, memory_order_relaxed);
    if (isa < 0) {
        const int cap = isa_cap();
        isa = detect_isa();
        if (isa > cap) isa = cap;
        /* Two threads may race through the detection; the first result is the one that stays. */
        int unset = -1;
        if (!atomic_compare_exchange_strong(&cached, &unset, isa)) isa = unset;
    }
    return isa;
}

int dmi_cpu_has_bf16(void) {
#if defined(__x86_64__)
    const char *word = getenv("DM_ISA");
    if (dmi_cpu_isa() < DMI_ISA_AVX512 || (word != NULL && isa_of(word) >= 0)) return 0;
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bf16") != 0;
#else
    return 0;
#endif
}

#if defined(__x86_64__) && defined(__linux__)
/* Tiles are 8 KiB of a thread's state, which Linux saves for processes that have asked for it. */
static int detect_amx(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    const unsigned tile = 1U << 24, bf16 = 1U << 22;
    unsigned a, b, c, d;
    if (!dmi_cpu_has_bf16() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    if ((d & tile) == 0 || (d & bf16) == 0) return 0;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
#else
static int detect_amx(void) {
    return 0;
}
#endif

int dmi_cpu_has_amx(void) {
    static _Atomic int cached = -1;
    int has = atomic_load_explicit(&cached, memory_order_relaxed);
    if (has < 0) {
        has = detect_amx();
        atomic_store_explicit(&cached, has, memory_order_relaxed);
    }
    return has;
}

const char *dmi_cpu_isa_name(int isa) {
    switch (isa) {
    case DMI_ISA_BASE:
        return DMI_ISA_BASE_NAME;
    case DMI_ISA_AVX2:
        return "avx2";
    case DMI_ISA_AVX512:
        return "avx512";
    default:
        return "unknown";
    }
}

int32_t dmi_cpu_count(void) {
    long count = 0;
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) count = CPU_COUNT(&set);
#endif
    if (count < 1) count = sysconf(_SC_NPROCESSORS_ONLN);
    if (count < 1) count = 1;
    return count > DMI_MAX_THREADS ? DMI_MAX_THREADS : (int32_t)count;
}
