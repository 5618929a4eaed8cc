#!/usr/bin/env bash
# Checks style, format and types: bash scripts/check.sh
set -euo pipefail
. "$(dirname "$0")/venv.sh" "[dev]"
cd "$root"
ruff check .
ruff format --check .
mypy
