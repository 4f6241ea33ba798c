#!/bin/sh
# Public headers, version script and shared library must name the same functions, and the library must not be able to
# end the process, print, or take memory behind the caller's back.
#   symbols.sh SOURCE_DIR libdiffusion.so
set -eu
export LC_ALL=C
source=$1 library=$2
[ -f "$library" ] || { echo "no $library"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

awk -v mode=functions -f "$source/cmake/api.awk" "$source"/include/diffusion/*.h | sort > "$work/headers"
sed -e 's/#.*//' -e '/^ *[{}]/d' -n -e 's/^ *\([A-Za-z0-9_]*\);.*/\1/p' "$source/lib/libdiffusion.map" |
    sort > "$work/map"
nm -D --defined-only "$library" | awk '$2 ~ /^[A-Z]$/ && $2 != "A" { sub(/@.*/, "", $3); print $3 }' |
    sort > "$work/library"

status=0
compare() { # name-a file-a name-b file-b
    if ! diff "$2" "$4" > "$work/diff"; then
        status=1
        sed -n "s/^< \(.*\)/only in $1, not in $3: \1/p; s/^> \(.*\)/only in $3, not in $1: \1/p" "$work/diff"
    fi
}
[ -s "$work/headers" ] || { echo "no function found in the headers"; exit 1; }
uniq -d "$work/map" | sed 's/^/twice in the map: /' > "$work/twice"
if [ -s "$work/twice" ]; then cat "$work/twice"; status=1; fi
if grep -q '\*' "$source/lib/libdiffusion.map" && ! awk '/local:/ { l = 1 } /\*/ && !l { bad = 1 } END { exit bad }' \
    "$source/lib/libdiffusion.map"; then
    echo "the map exports by wildcard"; status=1
fi
compare headers "$work/headers" map "$work/map"
compare map "$work/map" library "$work/library"

# malloc, free and friends belong to the default allocator alone; arrows.sh checks that in the sources.
nm -D --undefined-only "$library" | awk '{ sub(/@.*/, "", $2); print $2 }' | sort > "$work/undefined"
for name in abort exit _exit _Exit quick_exit raise __assert_fail printf fprintf vfprintf puts perror putchar \
    __printf_chk __fprintf_chk __vfprintf_chk rand srand random setlocale setenv; do
    if grep -qx "$name" "$work/undefined"; then echo "the library calls $name"; status=1; fi
done
[ $status -eq 0 ] && echo "$(wc -l < "$work/headers") functions agree"
exit $status
