#!/usr/bin/env bash
# Collects wheels for an installation without a network, with their hashes: bash scripts/wheelhouse.sh [FOLDER]
# Run it where there is a network, with the system and version of Python of the other machine. For torch without CUDA:
#   TORCH_INDEX=https://download.pytorch.org/whl/cpu bash scripts/wheelhouse.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$root/build/wheelhouse}
python=${PYTHON:-python3}
mkdir -p "$folder"
torch=$(grep '^torch==' "$root/constraints.txt")
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$folder" ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$torch"
"$python" -m pip wheel --quiet --wheel-dir "$folder" --find-links "$folder" \
    --constraint "$root/constraints.txt" "$torch" "$root"
"$python" - "$folder" "$root/requirements-hashes.txt" << 'END'
import hashlib
import re
import sys
from pathlib import Path

folder, known = Path(sys.argv[1]), Path(sys.argv[2]).read_text(encoding="utf-8")
lines, unknown = [], []
for wheel in sorted(folder.glob("*.whl")):
    name, version = wheel.name.split("-")[:2]
    name = re.sub(r"[-_.]+", "-", name).lower()
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if f"sha256:{digest}" not in known:
        unknown.append(wheel.name)
        if re.search(rf"^{name}==", known, re.MULTILINE) and name != "torch":
            sys.exit(f"{wheel} is not the file of requirements-hashes.txt. Delete it, and run this again.")
    lines.append(f"{name}=={version} --hash=sha256:{digest}")
(folder / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
size = sum(wheel.stat().st_size for wheel in folder.glob("*.whl")) / 1e6
print(f"{folder}: {len(lines)} wheels, {size:.0f} MB. Not in requirements-hashes.txt: {', '.join(unknown)}.")
print("On the other machine:")
print(f"    python -m pip install --no-index --find-links {folder.name} --require-hashes -r {folder.name}/requirements.txt")
END
