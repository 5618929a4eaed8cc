#!/usr/bin/env bash
# Both suites, and at the end the coverage of `custom`: bash scripts/coverage.sh
# Takes half as long again as the tests alone: Python 3.11 traces each step of every library too.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/test.sh --cov --cov-report=
bash scripts/test_label.sh --cov --cov-append --cov-report term
