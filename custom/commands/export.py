"""TorchScript and ONNX by MONAI's own calls, with every path explicit and the result checked.

MONAI's defaults are the current directory; a network that can't be scripted is traced.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ckpt_export, onnx_export

from custom.checkpoints.load import load_checkpoint, load_weights
from custom.errors import CheckpointError, ConfigError
from custom.files import written_whole
from custom.running.workflow import StrictWorkflow

Announce = Callable[[str, dict[str, Any]], None]
FORMATS = {"torchscript": "model.ts", "onnx": "model.onnx"}


def export(files: list[str], folder: Path, fmt: str, announce: Announce, **overrides: Any) -> Path:
    """Writes folder/model.ts or folder/model.onnx from the weights (`ckpt_path`), and compares it with them.

    TorchScript takes any size that the network takes, one window (1, C, *roi_size) where it had to be traced; ONNX
    always one window.

    Args:
        files: inference.json and mixins; the first one's folder has metadata.json.
        folder: a run's output_dir.
        fmt: "torchscript" or "onnx".
        announce: is told the name and the arguments of each MONAI call.
        overrides: settings of inference.json, roi_size or ckpt_path for instance.

    Raises:
        ConfigError: an unknown format or setting, or ONNX isn't installed.
        CheckpointError: the weights are missing or another network's, or the exported network's labels differ from
            the checkpoint's at more than one voxel in 10,000, or a classifier's logits by more than 0.001.
    """
    if fmt not in FORMATS:
        raise ConfigError(f"There is no format {fmt!r}. Use one of: {', '.join(FORMATS)}.")
    if fmt == "onnx" and not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
        raise ConfigError("ONNX needs three more packages: pip install onnx onnxscript onnxruntime.")
    settings = {"logging_file": False, "workflow_type": "infer", "output_dir": str(folder)}
    parser = StrictWorkflow(files, **settings, **overrides).parser
    weights, target = Path(parser.get_parsed_content("ckpt_path")), folder / FORMATS[fmt]
    overrides.pop("ckpt_path", None)
    network = parser.get_parsed_content("network_def").eval()
    content = load_checkpoint(weights)
    load_weights(network, content, weights)
    if set(content) != set(network.state_dict()):  # MONAI reads the file itself, and only plain weights
        weights = folder / "plain_weights.pt"
        with written_whole(weights) as partial:
            torch.save(network.state_dict(), partial)
    metadata = Path(files[0]).with_name("metadata.json")
    window = [1, parser.get_parsed_content("in_channels"), *parser.get_parsed_content("roi_size")]
    call: dict[str, Any] = {
        "net_id": "network_def",
        "config_file": files,
        "meta_file": str(metadata),
        "ckpt_file": str(weights),
        **overrides,
    }
    with written_whole(target) as partial:
        if fmt == "onnx":
            call |= {"input_shape": window}
            announce("onnx_export", call | {"filepath": str(target)})
            onnx_export(**call, filepath=str(partial))
        else:
            _torchscript(network, call, window, target, partial, announce)
        _compare(network, partial, fmt, torch.randn(window, generator=torch.Generator().manual_seed(0)))
    return target


def _torchscript(
    network: torch.nn.Module, call: dict[str, Any], window: list[int], target: Path, partial: Path, announce: Announce
) -> None:
    try:
        torch.jit.script(network)
    except Exception:
        print(f"{type(network).__name__} can't be scripted: it is traced, and takes windows of {window} only.")
        call |= {"use_trace": True, "input_shape": window}
    announce("ckpt_export", call | {"filepath": str(target)})
    content: Any = _InMemory()  # MONAI writes to streams too, though it declares paths only
    ckpt_export(**call, filepath=content)
    partial.write_bytes(content.getbuffer())


class _InMemory(io.BytesIO):
    """A file in memory: where the disk is full, torch's own writer of TorchScript ends the process."""

    def __repr__(self) -> str:  # in MONAI's log
        return "a file in memory"


def _compare(network: torch.nn.Module, exported: Path, fmt: str, window: torch.Tensor) -> None:
    with torch.no_grad():
        expected = network(window)
        if fmt == "onnx":
            import onnxruntime

            session = onnxruntime.InferenceSession(exported.read_bytes(), providers=["CPUExecutionProvider"])
            found = torch.as_tensor(session.run(None, {session.get_inputs()[0].name: window.numpy()})[0])
        else:
            found = torch.jit.load(str(exported), map_location="cpu").eval()(window)
    if expected.ndim == 2:  # of a whole image
        if not torch.allclose(expected, found, rtol=1e-3, atol=1e-3):
            raise CheckpointError(f"The exported network gives {found.tolist()}, the checkpoint {expected.tolist()}.")
        return
    agreement = float((expected.argmax(dim=1) == found.argmax(dim=1)).double().mean())
    if agreement < 0.9999:
        raise CheckpointError(f"The exported network gives the checkpoint's label at {agreement:.4%} of a window only.")
