#!/bin/sh
# The example of a binding runs; skipped where there is no Python.
#   python.sh SOURCE_DIR libdiffusion.so libdiffusion-api.json
set -eu
python=$(command -v python3) || { echo "no python3"; exit 77; }
PYTHONDONTWRITEBYTECODE=1 exec "$python" "$1/examples/ffi/python/sample_and_simulate.py" "$2" "$3"
