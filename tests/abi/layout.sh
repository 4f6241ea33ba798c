#!/bin/sh
# tests/abi/layout.c pins what exists (it compiles only while nothing changed); this checks that it pins all of it.
#   layout.sh SOURCE_DIR describe-api
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$2" layout | grep -E '^_Static_assert|\);$' | sort > "$work/today"
grep -E '^_Static_assert|\);$' "$1/tests/abi/layout.c" | sort > "$work/pinned"
comm -23 "$work/today" "$work/pinned" > "$work/missing"
if [ -s "$work/missing" ]; then
    echo "not pinned in tests/abi/layout.c; run: sh tests/abi/make-layout.sh"
    cat "$work/missing"
    exit 1
fi
echo "$(wc -l < "$work/pinned") facts pinned"
