#!/usr/bin/env bash
# Tests of the MONAI Label server, in its own environment: bash scripts/test_label.sh [pytest's arguments]
# Where that environment can't be had they are skipped, and it is said; those of Orthanc and OHIF skip without these.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! (. scripts/label_venv.sh && .venv-label/bin/python -m pip install --quiet -r tests/label/requirements.txt); then
    echo "SKIPPED tests/label: MONAI Label's environment can't be made here, for the reason above"
    exit 0
fi
. scripts/label_venv.sh
# two processes of one thread each; a file's tests share their servers
OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" exec python -m pytest --numprocesses 2 --dist loadfile tests/label "$@"
