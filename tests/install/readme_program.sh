#!/bin/sh
# The README's program is taken from the README, compiled as it says against what was installed, and run.
#   readme_program.sh SOURCE_DIR BUILD_DIR
set -eu
source=$1 build=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
CC=${CC:-cc}
command -v pkg-config > /dev/null || { echo "skipped: no pkg-config"; exit 77; }
if grep -q '^DM_PNG:BOOL=\(OFF\|0\|FALSE\|NO\)$' "$build/CMakeCache.txt"; then
    echo "skipped: a library without PNG"
    exit 77
fi

cmake --install "$build" --prefix "$work/prefix" > "$work/install.log"
libdir=$(dirname "$(dirname "$(find "$work/prefix" -name libdiffusion.pc)")")
export PKG_CONFIG_PATH="$libdir/pkgconfig" LD_LIBRARY_PATH="$libdir"
cd "$work"

# The first ```c block, which must be the only one.
awk '/^```c$/ { blocks++; inside = 1; next } /^```/ { inside = 0 } inside { print > "program.c" }
     END { if (blocks != 1) { print "README.md: expected one C program, got " blocks + 0; exit 1 } }' "$source/README.md"
$CC -std=c99 -pedantic -Wall -Wextra -Wconversion -Werror program.c $(pkg-config --cflags --libs libdiffusion) \
    -o program

# An IDX file of 128 images, 28 x 28: magic number, three sizes, bytes.
{
    printf '\000\000\010\003\000\000\000\200\000\000\000\034\000\000\000\034'
    yes '0123456789 ABCDEFGHIJKLMNOPQRSTUVWXYZ' | head -c $((128 * 28 * 28))
} > images.idx
./program images.idx 2
[ "$(head -c 4 samples.png | tail -c 3)" = PNG ] || { echo "samples.png is no PNG file"; exit 1; }

rm samples.png
if ./program no-such-file 2> message; then echo "a missing file went unnoticed"; exit 1; fi
grep -q no-such-file message || { echo "the message does not name the file:"; cat message; exit 1; }
[ ! -e samples.png ] || { echo "samples.png was written without data"; exit 1; }
echo "the README's program compiles and runs"
