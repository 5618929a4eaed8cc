"""From a folder's measures and the machine's memory to the settings of a bundle, each with its reason."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from monai.bundle import ConfigParser

from custom.planning.measure import Fingerprint
from custom.planning.memory import Machine, step_bytes

FEW = 20  # training subjects; below, the any-scan weights are the start. A rule of thumb, not a measured limit.
TISSUES, TUMORS = "brain_mri_tissue_segmentation", "brats_mri_tumor_segmentation"  # whose configs a plan starts from
HEAD_MM = (100, 320)  # the extent of a head's or brain's scan along each axis
FINE_MM = (0.6, 6.0)  # voxel sizes that the any-scan network's 1.5 mm stand for
ANISOTROPIC = 2.0  # the largest voxel size over the smallest
MOST_VOXELS = {"cuda": 160**3, "cpu": 80**3}  # of a window: on the CPU a step must not take minutes
STEPS = {"cuda": 15_000, "cpu": 2_000}  # of one training, near these
EPOCHS = (20, 1000)
START = "$@bundle_root + '/models/start.pt'"  # the any-scan weights in a planned bundle
_SIDES = re.compile(r"(?<![a-z])(left|right|lh|rh|l|r)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Decision:
    """One decision.

    Args:
        name: what it decides, in a word or two.
        value: as a user reads it.
        reason: one line.
        settings: the options of the bundle that it sets.
    """

    name: str
    value: str
    reason: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """All decisions, and the shipped bundle whose configs they go into."""

    template: str
    decisions: tuple[Decision, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """The options that the decisions set."""
        return {name: value for decision in self.decisions for name, value in decision.settings.items()}

    def __str__(self) -> str:
        return "\n".join(f"{one.name:<15}{one.value:<28}{one.reason}" for one in self.decisions)


def decide(known: Fingerprint, machine: Machine) -> Plan:
    """The plan for a folder on a machine: fine-tuning of the any-scan weights where they fit, else a new network."""
    start = _start(known)
    if start.settings:
        return Plan(TISSUES, (start, _fine_tuning(known, machine), flips(known)))
    spacing = _spacing(known)
    size = known.size_at(spacing.settings["spacing"])
    network, window = _network_and_window(known, machine, spacing.settings["spacing"], size)
    batch = _batch(known, machine, network, window)
    return Plan(TUMORS, (start, spacing, _intensities(known), network, window, batch, _length(known, machine, batch),
                         flips(known)))  # fmt: skip


def _start(known: Fingerprint) -> Decision:
    """Whether the any-scan weights are the start: one channel, few subjects, and a scan the size of a head."""
    few, one = len(known.training) < FEW, len(known.channels) == 1
    extent = [count * size for count, size in zip(known.size_at(known.spacing, box=False), known.spacing, strict=True)]
    head = all(HEAD_MM[0] <= length <= HEAD_MM[1] for length in extent)
    fine = all(FINE_MM[0] <= size <= FINE_MM[1] for size in known.spacing)
    count = f"{len(known.training)} training subjects"
    if few and one and head and fine:
        reason = f"one channel of a head, and {count} (fewer than {FEW})"
        return Decision("start", "any-scan weights", reason, {"from_weights": START})
    reasons = {
        f"{len(known.channels)} channels, and the any-scan network takes one": one,
        f"{count}: enough for a network of its own ({FEW} or more)": few,
        f"the scans are {_x(extent)} mm, not the size of a head": head,
        f"voxels of {_x(known.spacing)} mm, and the any-scan network has 1.5 mm": fine,
    }
    return Decision("start", "new weights", next(reason for reason, holds in reasons.items() if not holds))


def _fine_tuning(known: Fingerprint, machine: Machine) -> Decision:
    """The any-scan network's own window and spacing; the length by the number of subjects."""
    steps = {"cuda": 1500, "cpu": 400}[machine.kind]
    epochs = _epochs(steps, len(known.training))
    settings = {"max_epochs": epochs, "val_interval": max(1, epochs // 10)}
    reason = f"about {steps} steps of one scan, at 1.5 mm in windows of 112x144x144 as the weights were trained"
    return Decision("length", f"{epochs} epochs", reason, settings)


def _spacing(known: Fingerprint) -> Decision:
    spacing = list(known.spacing)
    why = "the median voxel size" if known.spacing_differs else "the voxel size of all scans"
    thick = spacing.index(max(spacing))
    if known.spacing_differs and max(spacing) > 3 * min(spacing):
        sizes = sorted(case.spacing[thick] for case in known.cases)
        spacing[thick] = sizes[len(sizes) // 10]
        why = "the median voxel size; of the thick slices the 10th percentile, so that thin ones keep their detail"
    return Decision("voxel size", f"{_x(spacing)} mm", why, {"spacing": spacing})


def _intensities(known: Fingerprint) -> Decision:
    nonzero = known.nonzero < 0.75
    reason = f"{1 - known.nonzero:.0%} of the voxels are 0" + (": the scans are cut out" if nonzero else "")
    value = "z-scores of what is not 0" if nonzero else "z-scores of the whole scan"
    normalize = {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": nonzero, "channel_wise": True}
    return Decision("intensities", value, reason, {"normalize": normalize})


def _network_and_window(
    known: Fingerprint, machine: Machine, spacing: list[float], size: tuple[int, ...]
) -> tuple[Decision, Decision]:
    """The network, and the largest window that fits: the axis that covers most of the scan is cut first."""
    anisotropic = max(spacing) >= ANISOTROPIC * min(spacing)
    plain = machine.kind == "cpu" and not anisotropic
    multiple = 8 if plain else 16  # UNet halves three times; more would be padding
    window = [max(32, multiple * math.ceil(length / multiple)) for length in size]
    if anisotropic:
        window = [
            max(8, 8 * math.ceil(length / 8)) if length < 32 else full
            for length, full in zip(size, window, strict=True)
        ]
    whole = list(window)
    limit = ""
    while True:
        network = _unet() if plain else _dynunet(spacing, window, machine)
        cuttable = [axis for axis in range(3) if window[axis] > 32]
        too_large = bool(cuttable) and math.prod(window) > MOST_VOXELS[machine.kind]
        if not too_large:  # counting the memory takes a while
            needed = step_bytes(_built(network, known), (2, len(known.channels), *window))
            if needed <= machine.budget or not cuttable:
                break
        limit = "the time of a step" if too_large else "the memory"
        axis = max(cuttable, key=lambda axis: window[axis] / whole[axis])
        window[axis] -= multiple
    name = "UNet" if plain else "DynUNet"
    why = {
        (True, False): "the lighter network, for the CPU",
        (False, False): "nnU-Net's network, for a GPU",
        (False, True): f"nnU-Net's network: its strides follow voxels of {_x(spacing)} mm",
    }[plain, anisotropic]
    memory = f"{needed / 1e9:.1f} of {machine.memory / 1e9:.0f} GB ({machine.kind})"
    reason = f"the whole median scan ({_x(size)}); a step takes {memory}"
    if limit:
        reason = f"the largest for {limit}; the median scan has {_x(size)}, a step takes {memory}"
    return (
        Decision("network", name, why, {"network_def": network}),
        Decision("window", f"{_x(window)} voxels", reason, {"roi_size": window}),
    )


def _unet() -> dict[str, Any]:
    return {"_target_": "UNet", "spatial_dims": 3, "in_channels": "@in_channels", "out_channels": "@out_channels",
            "channels": [16, 32, 64, 128, 256], "strides": [1, 2, 2, 2], "norm": "batch"}  # fmt: skip


def _dynunet(spacing: list[float], window: list[int], machine: Machine) -> dict[str, Any]:
    """DynUNet with nnU-Net's topology: an axis is halved while its voxels are near the finest and 8 or more remain.

    Source: Isensee et al. 2021, nnU-Net, Nature Methods 18, supplementary note 2.
    """
    sizes, voxels = list(window), list(spacing)
    strides, kernels = [[1, 1, 1]], [[3 if size < 2 * min(voxels) else 1 for size in voxels]]
    while len(strides) < 6:
        near = [size < 2 * min(voxels) for size in voxels]
        halved = [close and count % 2 == 0 and count >= 16 for close, count in zip(near, sizes, strict=True)]
        if not any(halved):
            break
        strides.append([2 if half else 1 for half in halved])
        sizes = [count // 2 if half else count for count, half in zip(sizes, halved, strict=True)]
        voxels = [size * 2 if half else size for size, half in zip(voxels, halved, strict=True)]
        kernels.append([3 if size < 2 * min(voxels) else 1 for size in voxels])
    first = 32 if machine.kind == "cuda" else 16
    return {
        "_target_": "DynUNet",
        "spatial_dims": 3,
        "in_channels": "@in_channels",
        "out_channels": "@out_channels",
        "kernel_size": kernels,
        "strides": strides,
        "upsample_kernel_size": strides[1:],
        "filters": [min(first * 2**level, 320) for level in range(len(strides))],
        "norm_name": "instance",
    }


def _built(network: Mapping[str, Any], known: Fingerprint) -> Any:
    config = {"in_channels": len(known.channels), "out_channels": len(known.labels), "network_def": dict(network)}
    return ConfigParser(config).get_parsed_content("network_def")


def _batch(known: Fingerprint, machine: Machine, network: Decision, window: Decision) -> Decision:
    """Two windows of one scan in a step; two scans where the memory is enough and there are four or more."""
    shape = (4, len(known.channels), *window.settings["roi_size"])
    fits = step_bytes(_built(network.settings["network_def"], known), shape) <= machine.budget
    scans = 2 if fits and machine.kind == "cuda" and len(known.training) >= 4 else 1
    reason = "the memory has room for four windows" if scans == 2 else "two windows of one scan in a step"
    return Decision("batch", f"{2 * scans} windows", reason, {"batch_size": scans, "samples_per_volume": 2})


def _length(known: Fingerprint, machine: Machine, batch: Decision) -> Decision:
    per_epoch = math.ceil(len(known.training) / batch.settings["batch_size"])
    epochs = _epochs(STEPS[machine.kind], per_epoch)
    settings = {"max_epochs": epochs, "val_interval": max(1, epochs // 50), "early_stop_patience": max(10, epochs // 3)}
    return Decision(
        "length", f"{epochs} epochs", f"{per_epoch} steps each, near {STEPS[machine.kind]} in all", settings
    )


def _epochs(steps: int, per_epoch: int) -> int:
    return min(EPOCHS[1], max(EPOCHS[0], round(steps / per_epoch)))


def flips(known: Fingerprint) -> Decision:
    """Left-right flips as augmentation, unless a label names a side."""
    sided = [name for name in known.labels.values() if _SIDES.search(name)]
    reason = f"the label {sided[0]!r} names a side" if sided else "no label names a side"
    value = "no left-right flips" if sided else "left-right flips"
    return Decision("augmentation", value, reason, {"flip": 0.0 if sided else 0.5})


def _x(sizes: Any) -> str:
    return "x".join(f"{size:.4g}" for size in sizes)
