#!/bin/sh
# Each public header compiles alone, and twice, as C99 and as C++17, without extensions or warnings, with every compiler
# there is; and diffusion.h includes them all.
#   headers.sh SOURCE_DIR
set -eu
source=$1
status=0
checked=0
warnings="-pedantic -Wall -Wextra -Wshadow -Wconversion -Werror -fsyntax-only"

check() { # compiler options header
    if ! printf '#include "%s"\n#include "%s"\ntypedef int not_empty;\n' "$3" "$3" | "$1" $2 $warnings -I"$source/include" -; then
        echo "failed: $1 $2: $3"; status=1
    fi
    checked=$((checked + 1))
}

for path in "$source"/include/diffusion.h "$source"/include/diffusion/*.h; do
    header=${path#"$source/include/"}
    for compiler in gcc clang; do
        if command -v $compiler > /dev/null; then check $compiler "-x c -std=c99 -Wstrict-prototypes" "$header"; fi
    done
    for compiler in g++ clang++; do
        if command -v $compiler > /dev/null; then check $compiler "-x c++ -std=c++17" "$header"; fi
    done
    case $header in
    diffusion.h | diffusion/experimental.h) ;;
    *) grep -q "^#include \"$header\"" "$source/include/diffusion.h" "$source/include/diffusion/types.h" ||
           { echo "diffusion.h does not include $header"; status=1; } ;;
    esac
done
[ $checked -gt 0 ] || { echo "no compiler found"; exit 1; }
[ $status -eq 0 ] && echo "$checked compilations without a warning"
exit $status
