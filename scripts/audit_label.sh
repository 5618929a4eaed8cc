#!/usr/bin/env bash
# Are vulnerabilities known of the label server's dependencies? bash scripts/audit_label.sh
# pip-audit runs in an environment of its own, build/audit. Packages about which its data cannot be reached are listed
# after NOT CHECKED, and the exit code is 0. A known vulnerability gives exit code 1.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! { "${PYTHON:-python3}" -m venv build/audit && build/audit/bin/pip install --quiet pip-audit==2.10.1; }; then
    echo "NOT CHECKED: pip-audit cannot be installed, see the error above."
    exit 0
fi
report=build/audit/report.json
rm -f "$report"
build/audit/bin/pip-audit --no-deps --disable-pip --progress-spinner off --format json --output "$report" \
    --requirement custom/serving/constraints-label.txt || true # the report says what was found
if [ ! -s "$report" ]; then
    echo "NOT CHECKED: the data of pip-audit cannot be reached, see the error above."
    exit 0
fi
build/audit/bin/python - "$report" << 'END'
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    packages = json.load(file)["dependencies"]
skipped = [package["name"] for package in packages if "skip_reason" in package]
found = {f"{package['name']} {package['version']}": package["vulns"] for package in packages if package.get("vulns")}
print(f"{len(packages) - len(skipped)} of {len(packages)} packages are checked, {len(found)} have known vulnerabilities.")
if skipped:
    print(f"NOT CHECKED, because pip-audit has no data about them: {', '.join(skipped)}")
for name, vulnerabilities in found.items():
    print(f"{name}: {', '.join(each['id'] for each in vulnerabilities)}. Update custom/serving/constraints-label.txt.")
sys.exit(bool(found))
END
