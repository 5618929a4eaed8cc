#!/usr/bin/env bash
# Runs what needs a CUDA device, tests and benchmarks, and writes all that it prints to gpu.txt: bash scripts/gpu.sh
# On a machine without a network, set TEST_PYTHON to a Python that has the project's dependencies and pytest.
set -uo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
if [ -n "${TEST_PYTHON:-}" ]; then
    python() { "$TEST_PYTHON" "$@"; }
else
    . "$(dirname "$0")/venv.sh" "[dev]"
fi
cd "$root"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
if ! python -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    echo "torch sees no CUDA device here. Install torch with CUDA, or run this on a machine that has a GPU." >&2
    exit 1
fi
failed=0
{
    date -u
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
    python -c "import torch, triton; print('torch', torch.__version__, 'triton', triton.__version__)"
    python -m pytest -q -rs -p no:cacheprovider tests/test_gpu.py tests/test_dice_triton.py tests/test_losses.py \
        tests/test_averaged_step.py tests/test_inferers.py || failed=1
    for dtype in float32 bfloat16 float16; do
        python scripts/benchmarks/dice_loss.py --case 4 --case 8 --dtype "$dtype" || failed=1
    done
    python scripts/benchmarks/dice_loss.py --eager --case 4 --dtype bfloat16 --layout channels_last || failed=1
    python scripts/benchmarks/dice_loss.py --eager --case 33 --case 133 || failed=1
} > >(tee gpu.txt) 2>&1
echo "Written to $root/gpu.txt"
exit "$failed"
