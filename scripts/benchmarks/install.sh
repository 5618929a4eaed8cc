#!/usr/bin/env bash
# Time and size of a fresh installation, in an environment that is deleted: bash scripts/benchmarks/install.sh [FOLDER]
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mktemp -d "${1:-${TMPDIR:-/tmp}}/install.XXXX")
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
install() { "$folder/venv/bin/python" -m pip install --quiet --no-cache-dir "$@"; }
SECONDS=0
install "$(grep '^torch==' "$root/constraints.txt")"
torch=$SECONDS
install --constraint "$root/constraints.txt" "$root"
echo "torch: $torch s. The rest: $((SECONDS - torch)) s. All: $(du -sm "$folder/venv" | cut -f1) MB. The five largest, MB:"
du -sm "$folder"/venv/lib/python*/site-packages/* | sort -rn | head -5 | sed 's|/.*/||'
