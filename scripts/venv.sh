# Makes .venv in the project's root, once, and puts it on PATH. Use: . scripts/venv.sh EXTRA
# torch comes first and with its pin: any other order or range can download several GB that are not needed.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
[ -x "$root/.venv/bin/python" ] || "$python" -m venv "$root/.venv"
PATH="$root/.venv/bin:$PATH"
if [ "$root/pyproject.toml" -nt "$root/.venv/installed$1" ] || [ "$root/constraints.txt" -nt "$root/.venv/installed$1" ]; then
    python -m pip install --quiet "$(grep '^torch==' "$root/constraints.txt")"
    python -m pip install --quiet --constraint "$root/constraints.txt" --editable "$root$1"
    touch "$root/.venv/installed$1"
fi
