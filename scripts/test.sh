#!/usr/bin/env bash
# Runs the tests: bash scripts/test.sh [pytest's arguments]; -m "" adds the thorough ones.
# The label server's tests are not among them: scripts/test_label.sh runs these.
set -euo pipefail
. "$(dirname "$0")/venv.sh" "[dev]"
cd "$root"
# two processes of one thread each take half the time of one process with two threads
OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" exec python -m pytest --numprocesses 2 --dist worksteal --durations 30 "$@"
