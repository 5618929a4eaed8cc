#!/usr/bin/env bash
# Writes requirements-hashes.txt: all packages with their versions (constraints.txt) and the hashes of their files on PyPI.
# Then it checks that each version of Python has wheels of all of them: bash scripts/lock.sh
set -euo pipefail
cd "$(dirname "$0")/.."
"${PYTHON:-python3}" -m venv build/lock
build/lock/bin/pip install --quiet uv==0.13.9
uv() { build/lock/bin/uv pip compile --quiet --no-header --no-annotate --constraint constraints.txt pyproject.toml "$@"; }
uv --universal --python-version 3.11 --generate-hashes --output-file requirements-hashes.txt
for version in 3.11 3.12 3.13; do
    for platform in x86_64-manylinux_2_28 aarch64-manylinux_2_28 windows; do
        uv --only-binary :all: --python-version "$version" --python-platform "$platform" --output-file build/lock/out.txt
        echo "Python $version, $platform: $(grep -c == build/lock/out.txt) packages, all with wheels"
    done
done
