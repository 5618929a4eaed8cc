#!/usr/bin/env bash
# Runs all tests: bash scripts/test.sh [pytest's arguments]
set -euo pipefail
. "$(dirname "$0")/venv.sh" "[dev]"
cd "$root"
# two processes of one thread each take half the time of one with two
OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" exec python -m pytest --numprocesses 2 --dist worksteal "$@"
