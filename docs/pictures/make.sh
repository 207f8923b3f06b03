#!/usr/bin/env bash
# Takes the pictures of the docs anew. Needs what `make demo` leaves in .demo, and Chromium.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

alens=${ALENS:-.venv/bin/alens}
HF_HUB_OFFLINE=1 $alens read .demo/lenses "He took her hand and" "It was a dark and stormy" --html "$work/read.html"
examples=docs/tutorials/examples
HF_HUB_OFFLINE=1 $alens locate .demo/lenses --terms $examples/locate-terms.txt --prompts $examples/locate-men.txt \
    --control $examples/locate-women.txt --paired --heat-map docs/pictures/locate.png > /dev/null
chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
    --disable-component-update --disable-sync --hide-scrollbars --force-color-profile=srgb --user-data-dir="$work/chromium" \
    --virtual-time-budget=20000 --window-size=1366,720 --screenshot="$PWD/docs/pictures/read.png" "file://$work/read.html" 2> "$work/log" \
    || { cat "$work/log" >&2; exit 1; }
