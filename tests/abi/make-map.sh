#!/bin/sh
# Writes lib/libdiffusion.map from the public headers, everything in the first version node. For use before the first
# release only: later names go into a node of their own, by hand.
set -eu
cd "$(dirname "$0")/../.."
LC_ALL=C awk -v mode=map -f cmake/api.awk include/diffusion/*.h > lib/libdiffusion.map.new
mv lib/libdiffusion.map.new lib/libdiffusion.map
