#!/bin/sh
# The rules of lib/README.md that text can show: who includes whom, one door to BLAS, no printing, no exits, one
# allocator.
#   arrows.sh SOURCE_DIR
set -eu
export LC_ALL=C
cd "$1/lib"
find . -name '*.c' -o -name '*.h' | sed 's,^\./,,' | sort | xargs awk '
BEGIN {
    # Directory -> internal directories that its files may include.
    may["core"] = "core"
    may["tensor"] = "core tensor"
    may["random"] = "core tensor random"
    may["io"] = "core tensor io"
    may["kernels"] = "core tensor random kernels"
    may["graph"] = "core tensor random kernels graph io"
    may["models"] = "core tensor random kernels graph models io"
    may["diffusion"] = "core tensor random diffusion kernels/elementwise.h kernels/precondition.h"
    may["samplers"] = "core tensor random diffusion samplers kernels/elementwise.h"
    may["sde"] = "core tensor random diffusion samplers sde kernels/elementwise.h"
    may["train"] = "core tensor random kernels graph diffusion samplers sde io train"
    forbidden = "abort exit _exit _Exit quick_exit assert printf fprintf vfprintf vprintf puts putchar perror rand srand"
    memory = "malloc calloc realloc free aligned_alloc posix_memalign strdup strndup alloca"
    split_into(forbidden, is_forbidden); split_into(memory, is_memory)
}
function split_into(list, set,    a, n, i) { n = split(list, a, " "); for (i = 1; i <= n; i++) set[a[i]] = 1 }
function complain(what) { print "lib/" FILENAME ":" FNR ": " what; failed = 1 }

FNR == 1 { files++; in_comment = 0; dir = FILENAME; sub(/\/.*/, "", dir)
           if (!(dir in may)) complain("a directory without a line in tests/abi/arrows.sh") }

{
    code = strip($0)
    if (code ~ /^[ \t]*#[ \t]*include/) { check_include($0); next }
    check_calls(code)
}

# The line without comments and without the inside of strings and characters.
function strip(s,    out, i, n, c, two, quote) {
    n = length(s)
    for (i = 1; i <= n; i++) {
        c = substr(s, i, 1); two = substr(s, i, 2)
        if (in_comment) { if (two == "*/") { in_comment = 0; i++ } continue }
        if (quote != "") { if (c == "\\") i++; else if (c == quote) { quote = ""; out = out c } continue }
        if (two == "/*") { in_comment = 1; i++; continue }
        if (two == "//") break
        if (c == "\"" || c == "\047") quote = c
        out = out c
    }
    return out
}

function check_include(s,    target, allowed, n, i, part) {
    if (s ~ /cblas|blis\.h/ && FILENAME != "kernels/gemm.c") complain("only kernels/gemm.c may include a BLAS header")
    if (s ~ /<assert\.h>/) complain("assert.h")
    if (!match(s, /"[^"]*"/)) return
    target = substr(s, RSTART + 1, RLENGTH - 2)
    if (target ~ /^diffusion\// || target == "diffusion.h") { check_public(target); return }
    if (target !~ /\//) { complain("include \"" target "\": expected a path from lib/"); return }
    n = split(may[dir], part, " ")
    for (i = 1; i <= n; i++) if (target == part[i] || index(target, part[i] "/") == 1) return
    complain(dir " must not include \"" target "\"")
}

# The equations know no network; samplers reach one through the public seam.
function check_public(target) {
    if (target !~ /^diffusion\/(net|unet|trainer)\.h$/) return
    if (dir ~ /^(core|tensor|random|kernels|diffusion|sde)$/) complain(dir " must not include \"" target "\"")
    if (dir == "samplers" && target != "diffusion/net.h") complain(dir " must not include \"" target "\"")
}

function check_calls(code,    rest, name, before) {
    rest = code
    while (match(rest, /[A-Za-z_][A-Za-z0-9_]*[ \t]*\(/)) {
        name = substr(rest, RSTART, RLENGTH - 1); sub(/[ \t]+$/, "", name)
        before = RSTART > 1 ? substr(rest, RSTART - 1, 1) : ""
        rest = substr(rest, RSTART + RLENGTH)
        if (before == "." || before == ">") continue
        if (name in is_forbidden) complain(name "() is not for a library")
        if (name in is_memory && FILENAME != "core/context.c") complain(name "(): only core/context.c may call it")
    }
}

END { if (files == 0) { print "no source found"; failed = 1 } if (!failed) print files " files checked"; exit failed }
'
