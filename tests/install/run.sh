#!/bin/sh
# Installs into an empty directory, moves it, and builds and runs a program against it in every documented way.
#   run.sh SOURCE_DIR BUILD_DIR
set -eu
here=$1/tests/install build=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
CC=${CC:-cc} CXX=${CXX:-c++}

CMAKE_GENERATOR=$(sed -n 's/^CMAKE_GENERATOR:INTERNAL=//p' "$build/CMakeCache.txt") # the one that is there
export CMAKE_GENERATOR
cmake --install "$build" --prefix "$work/first" > "$work/install.log"
mv "$work/first" "$work/prefix" # what was installed must not know where it was installed
prefix=$work/prefix
pc=$(find "$prefix" -name libdiffusion.pc)
libdir=$(dirname "$(dirname "$pc")")
[ -f "$libdir/libdiffusion.so.0" ] && [ -f "$libdir/libdiffusion.a" ] && [ -f "$prefix/include/diffusion.h" ]
if grep -rlF -e "$work" -e "$build" "$libdir/pkgconfig" "$libdir/cmake"; then
    echo "the files above hold a path of this machine"; exit 1
fi
export PKG_CONFIG_PATH="$libdir/pkgconfig"
soname=$(readelf -d "$libdir/libdiffusion.so" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')
[ "$soname" = libdiffusion.so.0 ] || { echo "soname: expected libdiffusion.so.0, got $soname"; exit 1; }

run() { # label program
    printf '%s: ' "$1"
    LD_LIBRARY_PATH=$libdir "$2"
}
needs_library() { readelf -d "$1" | grep -q 'NEEDED.*libdiffusion'; }

cp "$here/consumer.c" "$work/consumer.c"
cp "$here/consumer.c" "$work/consumer.cpp"
cd "$work"
flags=$(pkg-config --cflags libdiffusion)
$CC -std=c99 -pedantic -Wall -Wextra -Werror $flags consumer.c $(pkg-config --libs libdiffusion) -o shared-c
run "pkg-config, C99, shared" ./shared-c
needs_library shared-c || { echo "shared-c does not use the shared library"; exit 1; }

static=$(pkg-config --static --libs libdiffusion | sed 's/-ldiffusion/-l:libdiffusion.a/')
$CC -std=c99 -pedantic -Wall -Wextra -Werror $flags consumer.c $static -o static-c
run "pkg-config, C99, static" ./static-c
if needs_library static-c; then echo "static-c uses the shared library"; exit 1; fi

languages=C
if command -v "$CXX" > /dev/null; then
    languages="C CXX"
    $CXX -std=c++17 -pedantic -Wall -Wextra -Werror $flags consumer.cpp $(pkg-config --libs libdiffusion) -o shared-cxx
    run "pkg-config, C++17, shared" ./shared-cxx
    $CXX -std=c++17 -pedantic -Wall -Wextra -Werror $flags consumer.cpp $static -o static-cxx
    run "pkg-config, C++17, static" ./static-cxx
fi

for language in $languages; do
    [ $language = C ] && source=consumer.c || source=consumer.cpp
    cmake -S "$here" -B "build-$language" -DCMAKE_PREFIX_PATH="$prefix" -DCONSUMER_LANGUAGE=$language \
        -DCONSUMER_SOURCE="$work/$source" > "cmake-$language.log" || { cat "cmake-$language.log"; exit 1; }
    cmake --build "build-$language" > "cmake-$language.log" 2>&1 || { cat "cmake-$language.log"; exit 1; }
    run "find_package, $language, shared" "build-$language/consumer"
    run "find_package, $language, static" "build-$language/consumer_static"
    if needs_library "build-$language/consumer_static"; then
        echo "diffusion::diffusion_static links the shared library"; exit 1
    fi
done
