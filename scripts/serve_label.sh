#!/usr/bin/env bash
# MONAI Label with the bundles of this project: bash scripts/serve_label.sh --studies DIR|URL [--bundles iseg,brats_mri_tumor]
set -euo pipefail
. "$(dirname "$0")/label_venv.sh"
exec python -m custom.serving "$@"
