#!/usr/bin/env bash
# Runs all tests: bash scripts/test.sh [pytest's arguments]
set -euo pipefail
. "$(dirname "$0")/venv.sh" "[dev]"
cd "$root"
exec python -m pytest "$@"
