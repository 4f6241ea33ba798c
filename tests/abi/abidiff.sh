#!/bin/sh
# Compares the shared library with the committed dump of its ABI; new functions are welcome. Anything else has to be
# looked at: a field that was appended to an option struct is allowed (write a new dump), all other changes are not.
# Exit status 77 (skipped) without the dump, the tools, debug information, or on another architecture.
#   abidiff.sh SOURCE_DIR libdiffusion.so
# To write the dump: abidiff.sh SOURCE_DIR libdiffusion.so update
set -eu
source=$(cd "$1" && pwd) library=$2
dump=$source/tests/abi/libdiffusion.abi
skip() { echo "skipped: $1"; exit 77; }
command -v abidiff > /dev/null && command -v abidw > /dev/null || skip "no abidiff"
readelf -S "$library" | grep -q '\.debug_info' || skip "$library has no debug information"

# Both sides are dumps: types that no public header defines are opaque in a dump, whereas abidiff's own filter by
# header hides changes of the public ones.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
abidw --headers-dir "$source/include" --drop-private-types --exported-interfaces-only --no-corpus-path \
    --no-comp-dir-path --no-show-locs --no-write-default-sizes --no-elf-needed --out-file "$work/today.abi" "$library"
sed -i "s,path='$source/,path='," "$work/today.abi"

# abidw tells headers apart by their last name alone, and lib/graph/net.h is not include/diffusion/net.h: make the
# structs that are in no public header opaque as well.
sed -n 's/^typedef struct \(dm_[a-z0-9_]*\) {.*/\1/p' "$source"/include/diffusion/*.h > "$work/public"
awk -v quote="'" '
    NR == FNR { public[$1]; next }
    inside { if (/<class-decl/ && !/\/>/) inside++; if (/<\/class-decl>/) inside--; next }
    /<class-decl name=/ && !/\/>/ {
        split($0, part, quote)
        if (!(part[2] in public)) {
            sub(/ size-in-bits=[^ ]*/, ""); sub(/ id=/, " is-declaration-only=" quote "yes" quote "&"); sub(/>$/, "/>")
            inside = 1
        }
    }
    { print }' "$work/public" "$work/today.abi" > "$work/opaque.abi"
mv "$work/opaque.abi" "$work/today.abi"
if [ "${3:-}" = update ]; then
    cp "$work/today.abi" "$dump"
    exit 0
fi
[ -f "$dump" ] || skip "no $dump"
machine=$(readelf -h "$library" | sed -n 's/^ *Machine: *//p')
case $machine in *X86-64*) ;; *) skip "the dump is for x86-64, this is $machine" ;; esac
abidiff --no-added-syms "$dump" "$work/today.abi"
echo "same ABI"
