"""A scan of a random contrast from a label map, so that a network learns segmentation without images.

After Billot et al. 2023 (SynthSeg): a random deformation of the map, random intensities for each structure, then what
a scanner does to them. Every draw is from the transform's own state, in torch, on the map's device.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from torch.nn.functional import conv3d, interpolate, max_pool3d

# Relative brightness of CSF, GM and WM; 90% of the scans follow one of these, the others no order at all.
CONTRASTS = {"T1": (0.15, 0.50, 0.80), "T2": (0.95, 0.55, 0.35), "FLAIR": (0.10, 0.65, 0.50), "PD": (0.75, 0.80, 0.60)}


@dataclass
class Structures:
    """What the generator must know of a label map's codes.

    Args:
        label: {code: label to predict}.
        structure: {code: name}; codes of one name share their intensity. Codes without a name lie outside the brain.
        fluid: codes that a skull-stripped scan may have lost.
    """

    label: dict[int, int]
    structure: dict[int, str]
    fluid: Sequence[int] = (24,)

    def tables(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Per code: label, number of its intensity class, and 0 background, 1 brain, 2 fluid around it, 3 outside."""
        size = max(self.label) + 1
        names = sorted(set(self.structure.values()))
        label, intensity, place = (torch.zeros(size, dtype=torch.long) for _ in range(3))
        outside = len(names)
        for code, target in self.label.items():
            label[code] = target
            if code in self.structure:
                intensity[code] = names.index(self.structure[code])
                place[code] = 0 if code == 0 else 2 if code in self.fluid else 1
            else:
                intensity[code], place[code] = outside, 3
                outside += 1
        return label, intensity, place


class SynthesizeScand(RandomizableTransform, MapTransform):
    """Draws a scan and its labels from a label map.

    Args:
        keys: the label map's key, replaced by the labels to predict, uint8 (1, *size).
        image_key: where the scan goes, float32 (1, *size), about 0 to 1.
        structures: the meaning of the codes.
        size: of the result, in voxels.
        spacing: of the result, in mm; the map's voxels are 1 mm, (1, x, y, z), RAS.
        stripped: share of the scans that lost what lies around the brain.
        fixed_seed: draw the same scan from the same map at every call, another from another map, for validation.
    """

    def __init__(
        self,
        keys: Any,
        structures: Structures,
        size: Sequence[int],
        spacing: float = 1.0,
        image_key: str = "image",
        stripped: float = 0.3,
        fixed_seed: int | None = None,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, 1.0)
        self.image_key = image_key
        self.size = tuple(size)
        self.spacing = spacing
        self.stripped = stripped
        self.fixed_seed = fixed_seed
        self.label, self.intensity, self.place = structures.tables()
        self.tissue_of_class = torch.zeros(int(self.intensity.max()) + 1, dtype=torch.long)
        self.tissue_of_class[self.intensity] = self.label

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            codes = torch.as_tensor(result[key])[0]
            codes = codes.as_tensor() if isinstance(codes, MetaTensor) else codes
            if self.fixed_seed is not None:
                self.set_random_state((self.fixed_seed + int(codes.sum(dtype=torch.int64))) % 2**32)
            with torch.random.fork_rng(devices=[codes.device] if codes.is_cuda else []):
                torch.manual_seed(int(self.R.randint(2**31)))
                codes = self._deformed(codes)
                place = self.place.to(codes.device)[codes]
                kept = self._kept(place)
                label = self.label.to(codes.device)[codes] * kept
                affine = torch.diag(torch.tensor([*[self.spacing] * 3, 1.0], dtype=torch.float64))
                result[self.image_key] = MetaTensor(self._scan(codes, place, kept)[None], affine=affine)
                result[key] = MetaTensor(label.to(torch.uint8)[None], affine=affine)
        return result

    def _deformed(self, codes: torch.Tensor) -> torch.Tensor:
        """Affine and elastic, nearest neighbour: up to 15 degrees, 15 per cent, 4 mm; often cut off at random."""
        shape, device = torch.tensor(codes.shape), codes.device
        angles = self.R.uniform(-np.pi / 12, np.pi / 12, 3)
        turn = _rotation(angles) @ np.diag(self.R.uniform(0.85, 1.15, 3)) @ np.diag([self.R.choice([-1, 1]), 1, 1])
        brain = torch.tensor([codes.shape[0] / 2, codes.shape[1] / 2, codes.shape[2] * 0.6])
        centre = brain + torch.as_tensor(self.R.normal(0, 25, 3), dtype=torch.float32)
        axes = [(torch.arange(n, device=device) - (n - 1) / 2) * self.spacing for n in self.size]
        mm = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        points = torch.einsum("ij,jxyz->ixyz", torch.as_tensor(turn, dtype=torch.float32, device=device), mm)
        points += centre.to(device).view(3, 1, 1, 1)
        points += _smooth(3, self.size, 8, device) * float(self.R.uniform(0, 4))
        index = points.round_().long()
        inside = torch.ones(self.size, dtype=torch.bool, device=device)
        for axis, n in enumerate(shape.tolist()):
            inside &= (index[axis] >= 0) & (index[axis] < n)
            index[axis].clamp_(0, n - 1)
        return codes[index[0], index[1], index[2]].long() * inside

    def _kept(self, place: torch.Tensor) -> torch.Tensor:
        """What a skull-stripping leaves: everything; or the brain, 0 to 2 voxels around it and, mostly, its sulci."""
        if self.R.rand() >= self.stripped:
            return torch.ones_like(place, dtype=torch.bool)
        brain, margin = (place == 1)[None, None].float(), int(self.R.randint(3))
        closing = 0 if self.R.rand() < 0.15 else 4
        near = -_dilated(-_dilated(brain, closing + margin), closing)
        return (near[0, 0] > 0) & (place > 0) & (place < 3)

    def _scan(self, codes: torch.Tensor, place: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        device, stripped = codes.device, not kept.all()
        mean, deviation = (values.to(device) for values in self._intensities())
        classes = self.intensity.to(device)[codes]
        scan = mean[classes] + deviation[classes] * torch.randn(self.size, device=device)
        if stripped:
            scan = scan * kept
        else:  # around the brain, textures as bright as drawn or dimmed
            texture = 1 + 0.3 * _smooth(1, self.size, 16, device)[0]
            scan = torch.where(place == 3, scan * texture * float(self.R.choice([1, self.R.uniform(0.1, 0.6)])), scan)
            scan = scan * ((place > 0) | bool(self.R.rand() < 0.5))
        scan = scan.clamp_min(0)
        scan = _blurred(scan, self.R.uniform(0.2, 0.7, 3))
        scan = scan * torch.exp(_smooth(1, self.size, 4, device)[0] * float(self.R.uniform(0, 0.35)))
        scan = (scan / scan.max().clamp_min(1e-6)) ** float(np.exp(self.R.normal(0, 0.3)))
        noise = float(self.R.uniform(0, 0.06)) * float(self.R.rand() < 0.9)
        scan = self._low_resolution(scan, noise) if self.R.rand() < 0.25 else _rician(scan, noise)
        if stripped and self.R.rand() < 0.8:
            scan = scan * kept  # what is stripped is exactly 0, or has noise
        return scan

    def _intensities(self) -> tuple[torch.Tensor, torch.Tensor]:
        n = len(self.tissue_of_class)
        mean = self.R.uniform(0, 1, n)
        if self.R.rand() < 0.9:
            name = self.R.choice(list(CONTRASTS), p=[0.7, 0.12, 0.09, 0.09])
            tissue = np.asarray(CONTRASTS[name]) + self.R.normal(0, 0.06, 3)
            known = self.tissue_of_class.numpy() > 0
            mean[known] = tissue[self.tissue_of_class.numpy()[known] - 1] + self.R.normal(0, 0.05, known.sum())
        background = int(self.intensity[0])
        mean[background] = self.R.choice([0, self.R.uniform(0, 0.1)])
        deviation = self.R.uniform(0.0, 0.08, n)
        deviation[background] = 0.01
        return torch.as_tensor(mean, dtype=torch.float32), torch.as_tensor(deviation, dtype=torch.float32)

    def _low_resolution(self, scan: torch.Tensor, noise: float) -> torch.Tensor:
        """As if acquired with slices of up to 6 mm along one axis or voxels of up to 3.5 mm, interpolated back."""
        acquired = np.full(3, self.spacing)
        if self.R.rand() < 0.6:
            acquired[self.R.randint(3)] = self.R.uniform(self.spacing, 6.0)
        else:
            acquired[:] = self.R.uniform(self.spacing, 3.5)
        size = [max(4, round(n * self.spacing / mm)) for n, mm in zip(scan.shape, acquired, strict=True)]
        low = interpolate(scan[None, None], size=size, mode="area")
        return interpolate(_rician(low, noise), size=scan.shape, mode="trilinear")[0, 0]


def _rotation(angles: np.ndarray) -> np.ndarray:
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return x @ y @ z


def _dilated(volume: torch.Tensor, voxels: int) -> torch.Tensor:
    """The greatest value within some voxels along each axis, one axis after the other; its negative's erodes."""
    for axis in range(3):
        size, padding = [1, 1, 1], [0, 0, 0]
        size[axis], padding[axis] = 2 * voxels + 1, voxels
        volume = max_pool3d(volume, size, stride=1, padding=padding)
    return volume


def _smooth(channels: int, size: Sequence[int], knots: int, device: torch.device) -> torch.Tensor:
    """Random fields (channels, *size) of deviation about 1 with `knots` knots along each axis."""
    coarse = torch.randn((1, channels, knots, knots, knots), device=device)
    return interpolate(coarse, size=tuple(size), mode="trilinear", align_corners=True)[0]


def _blurred(scan: torch.Tensor, sigmas: np.ndarray) -> torch.Tensor:
    """Gaussian blur with a deviation in voxels per axis; its 5 taps make the partial volume of neighbours."""
    volume = scan[None, None]
    for axis, sigma in enumerate(sigmas):
        taps = torch.exp(-0.5 * (torch.arange(-2, 3, device=scan.device) / float(sigma)) ** 2)
        shape, padding = [1, 1, 1, 1, 1], [0, 0, 0]
        shape[axis + 2], padding[axis] = 5, 2
        volume = conv3d(volume, (taps / taps.sum()).view(shape), padding=padding)
    return volume[0, 0]


def _rician(scan: torch.Tensor, deviation: float) -> torch.Tensor:
    return torch.hypot(scan + deviation * torch.randn_like(scan), deviation * torch.randn_like(scan))
