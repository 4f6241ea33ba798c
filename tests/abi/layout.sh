#!/bin/sh
# tests/abi/layout.c pins what exists (it compiles only while nothing changed); this checks that it pins all of it.
#   layout.sh SOURCE_DIR [emulator] describe-api
set -eu
source=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$@" layout | grep -E '^_Static_assert|\);$' | sort > "$work/today"
grep -E '^_Static_assert|\);$' "$source/tests/abi/layout.c" | sort > "$work/pinned"
comm -23 "$work/today" "$work/pinned" > "$work/missing"
if [ -s "$work/missing" ]; then
    echo "not pinned in tests/abi/layout.c; run: sh tests/abi/make-layout.sh"
    cat "$work/missing"
    exit 1
fi
echo "$(wc -l < "$work/pinned") facts pinned"
