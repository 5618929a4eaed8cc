#!/usr/bin/env bash
# From a clean machine to a segmented brain: bash scripts/quickstart.sh [FOLDER] [--max_epochs N]
set -euo pipefail
. "$(dirname "$0")/venv.sh" ""
exec brainmri quickstart "$@"
