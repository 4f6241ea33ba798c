#!/bin/sh
# Writes tests/abi/layout.c from the public headers. Run it when the API has grown; a diff that alters or removes a
# released line means a broken ABI.
set -eu
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
set --
for header in include/diffusion/*.h; do
    [ "$header" = include/diffusion/experimental.h ] || set -- "$@" "$header"
done
LC_ALL=C awk -v mode=program -f cmake/api.awk "$@" > "$work/describe.c"
${CC:-cc} -Iinclude "$work/describe.c" -o "$work/describe"
"$work/describe" layout > "$work/layout.c"
mv "$work/layout.c" tests/abi/layout.c
