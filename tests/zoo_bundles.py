"""Bundles in the form in which MONAI's model zoo publishes them, written anew: facts of the form, small networks."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.networks.nets import SegResNet, UNet

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
CHANNELS = {"0": "T1c", "1": "T1", "2": "T2", "3": "FLAIR"}
REGIONS = {"0": "Tumor core", "1": "Whole tumor", "2": "Enhancing tumor"}
MERGED = ("Tumor core without Enhancing tumor", "Whole tumor without Tumor core, Enhancing tumor", "Enhancing tumor")
MERGE = "$lambda x: torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1, torch.where(x[[1]] > 0, 2, 0)))"
SEG_RES_NET = {"blocks_down": [1, 1], "blocks_up": [1], "init_filters": 8, "in_channels": 4, "out_channels": 3}
U_NET = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2], "norm": "batch"}
SAVE = {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "output_postfix": "seg"}


def tumor_bundle(folder: Path, merge: str | None = MERGE, **metadata: Any) -> Path:
    """As brats_mri_segmentation: four contrasts, three masks that overlap, merged by a lambda; without weights."""
    threshold = {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}
    steps: list[dict[str, Any]] = [{"_target_": "Activationsd", "keys": "pred", "sigmoid": True}, _invert(), threshold]
    steps += [{"_target_": "Lambdad", "keys": "pred", "func": merge}] if merge else []
    load = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True},
    ]
    config = _inference({"_target_": "SegResNet", **SEG_RES_NET}, load, [48, 48, 48], [*steps, SAVE])
    config["test_datalist"] = "$monai.data.load_decathlon_datalist(@dataset_dir + '/datalist.json')"
    config["dataset"]["data"] = "@test_datalist"
    loader = {
        "_target_": "CheckpointLoader",
        "load_path": "$@bundle_root + '/models/model.pt'",
        "load_dict": {"model": "@network"},
    }
    config["handlers"].insert(0, loader)
    config["run"] = ["$@evaluator.run()"]
    about = _metadata("Multimodal Brain Tumor segmentation", "MR", CHANNELS, REGIONS) | metadata
    return _write(folder, config, about)


def spleen_bundle(folder: Path, **metadata: Any) -> Path:
    """As spleen_ct_segmentation: one CT scan, resampled, exclusive classes; without weights."""
    load = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
        {"_target_": "Spacingd", "keys": "image", "pixdim": [5, 5, 5], "mode": "bilinear"},
        {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -57, "a_max": 164, "b_min": 0, "b_max": 1},
        {"_target_": "EnsureTyped", "keys": "image"},
    ]
    steps = [
        {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        _invert(),
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        SAVE,
    ]
    config = _inference({"_target_": "UNet", **U_NET}, load, [32, 32, 32], steps)
    config["checkpointloader"] = {
        "_target_": "CheckpointLoader",
        "load_path": "$@bundle_root + '/models/model.pt'",
        "load_dict": {"model": "@network"},
    }
    config["initialize"] = ["$monai.utils.set_determinism(seed=123)", "$@checkpointloader(@evaluator)"]
    config["run"] = ["$@evaluator.run()"]
    about = _metadata("Spleen segmentation", "CT", {"0": "image"}, {"0": "background", "1": "spleen"}) | metadata
    return _write(folder, config, about)


def _invert() -> dict[str, Any]:
    more = {"transform": "@preprocessing", "orig_keys": "image", "nearest_interp": False, "to_tensor": True}
    return {"_target_": "Invertd", "keys": "pred", **more}


def _inference(network: dict[str, Any], load: list[Any], roi: list[int], steps: list[Any]) -> dict[str, Any]:
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "output_dir": "$@bundle_root + '/eval'",
        "dataset_dir": "/workspace/data/nowhere",
        "datalist": "$list(sorted(glob.glob(@dataset_dir + '/imagesTs/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": network,
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": load},
        "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 4},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": roi, "sw_batch_size": 2, "overlap": 0.5},
        "postprocessing": {"_target_": "Compose", "transforms": steps},
        "handlers": [{"_target_": "StatsHandler", "iteration_log": False}],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
            "amp": True,
        },
    }


def _metadata(task: str, modality: str, channels: dict[str, str], labels: dict[str, str]) -> dict[str, Any]:
    shared = {"type": "image", "spatial_shape": ["8*n", "8*n", "8*n"], "dtype": "float32", "is_patch_data": True}
    image = {"format": "magnitude", "modality": modality, "num_channels": len(channels), "value_range": [0, 1]}
    pred = {"format": "segmentation", "num_channels": len(labels), "value_range": [0, 1]}
    return {
        "schema": SCHEMA,
        "version": "0.5.3",
        "changelog": {"0.5.3": "written anew"},
        "monai_version": "1.4.0",
        "pytorch_version": "2.4.0",
        "numpy_version": "1.24.4",
        "name": "A name with spaces",
        "task": task,
        "description": "A test bundle in the model zoo's form",
        "authors": "tests",
        "copyright": "tests",
        "network_data_format": {
            "inputs": {"image": shared | image | {"channel_def": channels}},
            "outputs": {"pred": shared | pred | {"channel_def": labels}},
        },
    }


def _write(folder: Path, config: dict[str, Any], metadata: dict[str, Any]) -> Path:
    for name in ("configs", "models", "docs"):
        (folder / name).mkdir(parents=True)
    for name, content in {"inference": config, "metadata": metadata}.items():
        (folder / "configs" / f"{name}.json").write_text(json.dumps(content, indent=4))
    return folder


def train_tumor(folder: Path, files: Sequence[Path], label: Path, steps: int = 80) -> Path:
    """Trains the tumor bundle's network on windows of one patient, and saves its weights.

    Args:
        folder: of the bundle.
        files: T1c, T1, T2 and FLAIR.
        label: the label map with codes 1, 2 and 4.
        steps: of the optimizer; every second one is on a window around the tumor.
    """
    torch.manual_seed(0)
    network = SegResNet(**SEG_RES_NET)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    codes = np.asarray(nibabel.load(label).dataobj)
    image = np.stack([_normalized(path) for path in files])
    masks = np.stack([np.isin(codes, inside) for inside in ((1, 4), (1, 2, 4), (4,))])
    inside = np.argwhere(codes > 0)
    tumor = (inside.min(axis=0) + inside.max(axis=0)) // 2
    others = itertools.cycle(itertools.product(*((size // 4, size // 2, 3 * size // 4) for size in codes.shape)))
    loss = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0))
    for step in range(steps):
        window = (slice(None), *_window(tumor if step % 2 else np.array(next(others)), codes.shape))
        given, wanted = (torch.as_tensor(array[window], dtype=torch.float32)[None] for array in (image, masks))
        optimizer.zero_grad()
        loss(network(given), wanted).backward()
        optimizer.step()
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


def random_spleen(folder: Path) -> Path:
    """Random weights for the spleen bundle, wrapped as trainings save them."""
    torch.manual_seed(0)
    network = UNet(**U_NET)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    torch.save({"model": network.state_dict()}, folder / "models" / "model.pt")
    return folder


def _normalized(path: Path) -> np.ndarray:
    voxels = np.asarray(nibabel.load(path).dataobj, dtype=np.float32)
    inside = voxels[voxels != 0]
    return np.where(voxels != 0, (voxels - inside.mean()) / inside.std(), 0)


def _window(middle: np.ndarray, shape: Sequence[int], size: int = 24) -> tuple[slice, ...]:
    """A window of this size around a voxel, inside the array."""
    starts = [int(np.clip(place - size // 2, 0, n - size)) for place, n in zip(middle, shape, strict=True)]
    return tuple(slice(start, start + size) for start in starts)
