#!/usr/bin/env bash
# Kills, fills disks, bombs and floods, and prints what was tried and what was lost (docs/reliability.md):
# bash scripts/chaos.sh [MINUTES] [SEED] [ROW ...]
set -euo pipefail
. "$(dirname "$0")/venv.sh" "[dev]"
cd "$root"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" MPLBACKEND=Agg
exec python -m scripts.chaos "$@"
