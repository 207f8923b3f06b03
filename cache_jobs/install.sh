#!/usr/bin/env bash
# Installs alens, at the tested versions, into a new virtual environment: for images of containers, and for machines
# that have nothing but Python. The file stands in a checkout, or in a copy of its folders pipeline/ and cache_jobs/.
#
#   cache_jobs/install.sh DIRECTORY
#
# Environment:
#   TORCH_INDEX   the --index-url that pytorch.org gives for a build of PyTorch, such as the one for CPUs alone.
#                 Default: what pip takes by itself, on Linux the build for CUDA, which runs on a CPU as well.
#   PYTHON        Python 3.11 or later. Default: python3.

set -euo pipefail

if [ $# -ne 1 ]; then
    echo "install.sh: name the directory of the new environment: cache_jobs/install.sh DIRECTORY" >&2
    exit 2
fi
checkout=$(dirname -- "${BASH_SOURCE[0]}")/..

"${PYTHON:-python3}" -m venv -- "$1"
install=("$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir
    --constraint "$checkout/constraints.txt")
torch=()
[ -z "${TORCH_INDEX:-}" ] || torch+=(--index-url "$TORCH_INDEX")
# First and alone: no other package may choose the build of PyTorch.
"${install[@]}" "${torch[@]}" torch
"${install[@]}" "${checkout}[s3]"
"$1/bin/alens" --help > /dev/null
