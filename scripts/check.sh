#!/usr/bin/env bash
# Lint, format and types.
set -euo pipefail
. "$(dirname "$0")/venv.sh" "[dev]"
cd "$root"
ruff check .
ruff format --check .
mypy
