#!/bin/sh
# Every public function's comment has its parts, and every public type is one that the ABI allows.
#   docs.sh SOURCE_DIR
set -eu
export LC_ALL=C
status=0
for mode in docs rules; do
    awk -v mode=$mode -f "$1/cmake/api.awk" "$1"/include/diffusion/*.h || status=1
done
exit $status
