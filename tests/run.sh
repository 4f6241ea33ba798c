#!/bin/sh
# Builds and tests everything. Installs what is missing (Debian packages). A second run builds only what changed.
#
#   sh tests/run.sh            all parts but tsan and aarch64
#   sh tests/run.sh all        all parts below
#   sh tests/run.sh quick      main alone
#   sh tests/run.sh PART ...   some of: main blis clang sanitize tsan aarch64 valgrind
#
#   main      gcc, warnings are errors, every test                                     build-ci/
#   blis      the library on another BLAS: unit, golden and symbol tests               build-ci-blis/
#   clang     the library compiles with clang, warnings are errors; unit tests         build-ci-clang/
#   sanitize  AddressSanitizer and UBSan: unit, out-of-memory and fuzz tests           build-ci-asan/
#   tsan      ThreadSanitizer: unit tests                                              build-ci-tsan/
#   aarch64   cross-compiled; unit, golden and layout tests under qemu-user            build-ci-aarch64/
#   valgrind  memcheck over the unit tests of main
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=cmake/packages.sh
. cmake/packages.sh

jobs=2
all="main blis clang sanitize tsan aarch64 valgrind"
parts="$*"
case $parts in
"") parts="main blis clang sanitize valgrind" ;;
all) parts=$all ;;
quick) parts=main ;;
esac
packages="$dm_packages_build $dm_packages_data $dm_packages_test"
for part in $parts; do
    case " $all " in
    *" $part "*) ;;
    *) sed -n '2,16s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    if [ "$part" = aarch64 ]; then packages="$packages $dm_packages_aarch64"; fi
done
# shellcheck disable=SC2086 # lists of words
dm_install $packages

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
failed=""

# build DIRECTORY cmake-option ...
build() {
    directory=$1
    shift
    if ! cmake -S . -B "$directory" -G Ninja -DDM_WERROR=ON "$@" > "$logs/cmake" 2>&1; then
        cat "$logs/cmake"
        return 1
    fi
    cmake --build "$directory" -j $jobs > "$logs/build" 2>&1 || { grep -v '^\[' "$logs/build" | tail -60; return 1; }
    tail -1 "$logs/build"
}

# run_ctest DIRECTORY ctest-option ...
run_ctest() {
    directory=$1
    shift
    status=0
    (cd "$directory" && ctest -j $jobs --output-on-failure --no-tests=error "$@") > "$logs/ctest" 2>&1 || status=$?
    if [ $status -eq 0 ]; then
        sed -n '/tests passed/,$p' "$logs/ctest"
    else
        cat "$logs/ctest"
    fi
    return $status
}

# Debug information is for abidiff and valgrind; it changes no instruction.
part_main() { build build-ci -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS=-g && run_ctest build-ci; }

part_blis() {
    build build-ci-blis -DCMAKE_BUILD_TYPE=Release -DDM_BLAS=blis -DDM_EXAMPLES=OFF &&
        run_ctest build-ci-blis -L 'unit|golden' && run_ctest build-ci-blis -R 'abi-symbols|install'
}

part_clang() {
    build build-ci-clang -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_COMPILER=clang &&
        run_ctest build-ci-clang -L 'unit|abi'
}

part_sanitize() {
    build build-ci-asan -DCMAKE_BUILD_TYPE=Debug "-DCMAKE_C_FLAGS_DEBUG=-O1 -g" -DDM_SANITIZE=address,undefined \
        -DDM_EXAMPLES=OFF && run_ctest build-ci-asan -L 'unit|oom|fuzz'
}

part_tsan() {
    build build-ci-tsan -DCMAKE_BUILD_TYPE=Debug "-DCMAKE_C_FLAGS_DEBUG=-O1 -g" -DDM_SANITIZE=thread \
        -DDM_EXAMPLES=OFF && run_ctest build-ci-tsan -L unit
}

part_aarch64() {
    build build-ci-aarch64 -DCMAKE_BUILD_TYPE=Release -DDM_EXAMPLES=OFF \
        -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake &&
        run_ctest build-ci-aarch64 -L 'unit|golden|abi'
}

part_valgrind() {
    build build-ci -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS=-g || return 1
    # BLAS threads that wait in a spin loop starve valgrind, which runs one thread at a time. A fused multiply-add costs
    # it a call a lane: kernels are checked for every instruction set by their own tests, all else runs the base one.
    # shellcheck disable=SC2016 # the inner shell expands
    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 LOGS=$logs xargs -P $jobs -I '{}' sh -c '
        name=$(basename "{}")
        case $name in
        unit-attention* | unit-conv* | unit-fixed_params | unit-gradients | unit-isa | unit-random | unit-sde_noise) ;;
        *) export DM_ISA=base ;;
        esac
        cd build-ci/tests/scratch
        if timeout 900 valgrind -q --error-exitcode=99 --leak-check=full "{}" > "$LOGS/$name.memcheck" 2>&1; then
            touch "$LOGS/$name.clean"
        else
            echo "valgrind: $name failed"
            tail -60 "$LOGS/$name.memcheck"
        fi' < build-ci/tests/unit-programs.txt
    total=$(wc -l < build-ci/tests/unit-programs.txt)
    clean=$(find "$logs" -name '*.clean' | wc -l)
    echo "valgrind: $clean of $total unit test programs clean"
    [ "$total" -gt 0 ] && [ "$clean" -eq "$total" ]
}

summary=$logs/summary
: > "$summary"
for part in $parts; do
    echo "== $part"
    started=$(date +%s)
    if "part_$part"; then result=ok; else result=FAILED failed="$failed $part"; fi
    echo "$part: $result ($(($(date +%s) - started)) s)" >> "$summary"
    if [ "$part" = main ] && [ -s "$logs/ctest" ]; then
        sed -n '/tests passed/p; /tests failed/p' "$logs/ctest" | sort -u > "$logs/closing"
    fi
done

echo "== summary"
cat "$summary"
if [ -f "$logs/closing" ]; then cat "$logs/closing"; fi
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
