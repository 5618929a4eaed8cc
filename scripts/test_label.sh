#!/usr/bin/env bash
# Tests of the MONAI Label server, in its own environment: bash scripts/test_label.sh [pytest's arguments]
# Without that environment, Orthanc or Chromium, tests are skipped with a message. With CI=true they fail instead.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! (. scripts/label_venv.sh && .venv-label/bin/python -m pip install --quiet -r tests/label/requirements.txt); then
    message="tests/label: the environment of MONAI Label could not be made, see the error above."
    if [ "${CI:-}" = true ]; then
        echo "FAILED $message" >&2
        exit 1
    fi
    echo "SKIPPED $message"
    exit 0
fi
. scripts/label_venv.sh
# Two processes with one thread each. The tests of one file share their servers. -rs prints why a test was skipped.
OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" exec python -m pytest -rs --numprocesses 2 --dist loadfile --durations 20 tests/label "$@"
