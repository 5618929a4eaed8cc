# Makes .venv-label, the environment of MONAI Label, in the project's root, and puts it on PATH. Use: . scripts/label_venv.sh
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"${PYTHON:-python3}" "$root/custom/serving/environment.py" "$root/.venv-label" || return 1
PATH="$root/.venv-label/bin:$PATH"
