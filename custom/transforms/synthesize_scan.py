"""A scan of a random contrast from a label map, so that a network learns segmentation without images.

After Billot et al. 2023, "SynthSeg: Segmentation of brain MRI scans of any contrast and resolution without
retraining", Medical Image Analysis 86, 102789: a random deformation of the map, random intensities for each structure,
then what a scanner does to them. All is drawn on the map's device, from generators of the transform's own, and nothing
waits for that device.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from torch.nn.functional import avg_pool3d, interpolate

from custom.transforms.synthesis_fields import blurred, dilated, rotation, upsampled
from custom.transforms.synthesis_structures import BACKGROUND, BRAIN, FLUID, OUTSIDE, Structures

# Mean brightness of CSF, GM and WM, and how often a scan with tissues in a known order follows each.
CONTRASTS = {"T1": (0.15, 0.50, 0.80), "T2": (0.95, 0.55, 0.35), "FLAIR": (0.10, 0.65, 0.50), "PD": (0.75, 0.80, 0.60)}
SHARES = {"T1": 0.5, "T2": 0.22, "FLAIR": 0.16, "PD": 0.12}
# How far the mean of grey structures lies from grey towards white matter, and of white ones away from it, at most.
BETWEEN = {
    "thalamus": 0.6, "pallidum": 1.1, "putamen": 0.2, "ventral diencephalon": -0.25, "brain stem": -0.15,
}  # fmt: skip


class SynthesizeScand(RandomizableTransform, MapTransform):
    """Draws a scan and its labels from a label map.

    The scan is scaled so that its 1st percentile is 0 and its 99th is 1, as a network sees a real scan.

    Args:
        keys: the label map's key, codes (1, x, y, z), RAS, voxels of 1 mm. Replaced by the labels to predict, uint8
            (1, *size), or (2, *size) with the side (0 none, 1 left, 2 right) as a second channel where `structures`
            has sides.
        structures: the meaning of the codes.
        size: of the result, in voxels.
        spacing: of the result, in mm.
        image_key: where the scan goes, float32 (1, *size).
        stripped: share of the scans that lost what lies around the brain. A map whose item has "has_head": False (see
            FillSulcid) is always drawn so.
        ordered: share of the scans in which tissues have the order of T1w, T2w, FLAIR or PD.
        contrast: draw all scans in this one of CONTRASTS; with equal random states the anatomy is the same in each.
        cut: share of the scans that are slabs, or whose field of view cuts the head.
        fixed_seed: draw the same scan from the same map at every call, another from another map or with another
            "draw" in the item, for validation.
        track_meta: give MetaTensors, with an affine; they cost a training step some milliseconds.
    """

    def __init__(
        self,
        keys: Any,
        structures: Structures,
        size: Sequence[int] = (112, 144, 144),
        spacing: float = 1.5,
        image_key: str = "image",
        stripped: float = 0.35,
        ordered: float = 0.6,
        contrast: str | None = None,
        cut: float = 0.22,
        fixed_seed: int | None = None,
        track_meta: bool = True,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, 1.0)
        self.structures = structures
        self.size = tuple(size)
        self.spacing = spacing
        self.image_key = image_key
        self.stripped = stripped
        self.ordered = ordered
        self.contrast = contrast
        self.cut = cut
        self.fixed_seed = fixed_seed
        self.track_meta = track_meta
        self.device = torch.device("cpu")
        self._on_device: dict[torch.device, tuple[torch.Tensor, list[torch.Tensor]]] = {}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with its keys replaced, as the class describes."""
        result = dict(data)
        for key in self.key_iterator(result):
            codes = torch.as_tensor(result[key])[0]
            codes = codes.as_tensor() if isinstance(codes, MetaTensor) else codes
            if self.fixed_seed is not None:
                seed = self.fixed_seed + 1009 * int(data.get("draw", 0)) + int(codes.sum(dtype=torch.int64))
                self.set_random_state(seed % 2**32)
            self.device = codes.device
            self.generator = torch.Generator(self.device)
            self.generator.manual_seed(int(self.R.randint(2**31)))
            with torch.no_grad():
                scan, label = self._draw(codes, bool(data.get("has_head", True)))
            result[self.image_key], result[key] = scan[None], label
            if self.track_meta:
                affine = torch.diag(torch.tensor([*[self.spacing] * 3, 1.0], dtype=torch.float64))
                for name in (self.image_key, key):
                    result[name] = MetaTensor(result[name], affine=affine)
        return result

    def _draw(self, codes: torch.Tensor, has_head: bool) -> tuple[torch.Tensor, torch.Tensor]:
        tables, _ = self._constants()
        flipped = self.R.rand() < 0.5
        codes, below = self._deformed(codes, flipped)
        index = codes.long()
        label, kind, place = (torch.take(table, index) for table in tables[:3])
        label = label * ~below
        view = self._field_of_view()
        if view is not None:
            label, place = label * view, place * view
        kept = self._kept(place, below) if self.R.rand() < self.stripped or not has_head else None
        if kept is not None:
            label = label * kept
        scan = self._scanned(self._tissue(kind, place, kept), kept, view)
        if self.structures.side is None:
            return scan, label[None]
        side = torch.take(tables[3], index) * (label > 0)
        if flipped:
            side = torch.where(side > 0, 3 - side, side)
        return scan, torch.stack([label, side])

    # --- where: the map's anatomy, deformed

    def _deformed(self, codes: torch.Tensor, flipped: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes after an affine and an elastic deformation, nearest neighbour, and which voxels lie below the map.

        Up to 15 degrees, 0.1 of shear, factors of .82 to 1.22, displacements of some mm at two scales. In half of the
        scans the map's lowest slice goes on below it, as a neck does.
        """
        uniform, shape = self.R.uniform, codes.shape
        shear = np.eye(3)
        shear[np.triu_indices(3, 1)] = uniform(-0.1, 0.1, 3)
        turn = rotation(np.deg2rad(uniform(-15, 15, 3))) @ shear @ np.diag(uniform(0.82, 1.22, 3))
        turn = turn @ np.diag([-1 if flipped else 1, 1, 1])
        middle = shape[2] / 2 if self.R.rand() < 0.5 else shape[2] - 75.0  # of the map, or of the brain
        centre = np.array([shape[0] / 2, shape[1] / 2, middle]) + self.R.normal(0, 1, 3) * [8, 12, 13]
        affine = self._upload(np.concatenate([turn, centre[:, None]], axis=1))
        knots = [max(4, int(np.ceil(n * self.spacing / 12))) for n in self.size]
        axes = [
            torch.linspace(-(n - 1) / 2, (n - 1) / 2, k, device=self.device) * self.spacing
            for n, k in zip(self.size, knots, strict=True)
        ]
        points = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        points = (affine[:, :3] @ points.view(3, -1)).view(points.shape) + affine[:, 3].view(3, 1, 1, 1)
        points = points + self._smooth(3, knots, 6) * float(uniform(0, 4))
        points = points + avg_pool3d(self._normal(1, 3, *knots), 3, 1, 1)[0] * float(uniform(0, 3))
        points = upsampled(points[None], self.size, align_corners=True)[0].round_()
        has_neck = self.R.rand() < 0.5
        inside, place = torch.ones((), dtype=torch.bool, device=self.device), torch.zeros((), device=self.device)
        for axis, n in enumerate(shape):
            at = points[axis]
            inside = inside & (at < n) & (at >= (-torch.inf if axis == 2 and has_neck else 0))
            place = place * n + at.clamp(0, n - 1).to(torch.int32)
        flat = codes.reshape(-1).index_select(0, place.reshape(-1).long()).view(self.size)
        return flat * inside, points[2] <= 0

    def _field_of_view(self) -> torch.Tensor | None:
        """(*size), 1 in the part that a slab or a cut field of view holds; None for all of it."""
        if self.R.rand() >= self.cut:
            return None
        axis = int(self.R.choice(3, p=[0.2, 0.2, 0.6]))
        n = self.size[axis]
        thick = min(n, max(8, int(self.R.uniform(0.06, 0.7) * n)))
        view = torch.zeros(self.size, dtype=torch.uint8, device=self.device)
        view.narrow(axis, int(self.R.randint(0, n - thick + 1)), thick).fill_(1)
        return view

    def _kept(self, place: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
        """What a skull-stripping leaves: the brain, 0 to 2 voxels around it and, mostly, its sulci."""
        margin, closing = int(self.R.randint(3)), 0 if self.R.rand() < 0.15 else 3
        brain = ((place == BRAIN) & ~below)[None, None].to(torch.uint8)
        near = 1 - dilated(1 - dilated(brain, closing + margin), closing) if closing + margin else brain
        return (near[0, 0] > 0) & (place > BACKGROUND) & (place < OUTSIDE)

    # --- how bright: each structure's intensity, and what changes it in places

    def _tissue(self, kind: torch.Tensor, place: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
        mean, std = self._upload(np.stack(self._intensities()))
        scan = torch.take(mean, kind.long()) + torch.take(std, kind.long()) * self._normal(*self.size)
        if self.R.rand() < 0.25:
            scan = self._with_pathology(scan, (place == BRAIN) | (place == FLUID))
        if kept is not None:
            return scan * kept
        texture = 1 + 0.3 * self._smooth(1, self.size, 16)[0]
        dimmed = float(self.R.choice([1, 1, self.R.uniform(0.05, 0.6)]))  # as by fat suppression
        scan = torch.where(place == OUTSIDE, scan * texture * dimmed, scan)
        if self.R.rand() < 0.15:
            scan = scan + (place == BACKGROUND) * float(self.R.uniform(0, 0.1))
        return scan

    def _intensities(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each class of structures."""
        structures, normal = self.structures, self.R.normal
        mean = self.R.uniform(0, 1, structures.classes)
        tissue = structures.tissue_of_class
        known = tissue > 0
        if self.R.rand() < self.ordered or self.contrast:
            name = self.contrast or self.R.choice(list(CONTRASTS), p=list(SHARES.values()))
            of_tissue = np.asarray(CONTRASTS[name]) + normal(0, 0.07, 3)
            mean[known] = of_tissue[tissue[known] - 1] + normal(0, 0.05, known.sum())
            for structure, most in BETWEEN.items():
                if structure in structures.names:
                    shift = most * (of_tissue[2] - of_tissue[1]) * self.R.uniform(0.2, 1)
                    mean[structures.names.index(structure)] += shift
        elif self.R.rand() < 0.5:  # tissues in any order
            mean[known] = self.R.uniform(0, 1, 3)[tissue[known] - 1] + normal(0, 0.05, known.sum())
        if self.R.rand() < 0.15 and "vessel" in structures.names:
            mean[structures.names.index("vessel")] = self.R.uniform(0.5, 1.1)
        mean[structures.background] = 0 if self.R.rand() < 0.6 else self.R.uniform(0, 0.1)
        std = self.R.uniform(0, 0.08, structures.classes)
        std[structures.background] = 0.01
        return mean, std

    def _with_pathology(self, scan: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
        """One to three blobs of 4 to 39 mm radius and any brightness in the brain; the labels stay."""
        _, mm = self._constants()
        flat, strides = brain.reshape(-1), (self.size[1] * self.size[2], self.size[2], 1)
        for _ in range(self.R.randint(1, 4)):
            tried = self._upload(self.R.randint(0, flat.numel(), 64)).long()
            hit = torch.take(flat, tried).to(torch.uint8)
            at = torch.take(tried, hit.argmax())
            voxel = torch.stack([at // stride % n for stride, n in zip(strides, self.size, strict=True)])
            radii = self._upload(self.R.uniform(4, 28) * self.R.uniform(0.6, 1.4, 3))
            x, y, z = (
                ((axis - at * self.spacing) / radius) ** 2
                for axis, at, radius in zip(mm, voxel.float(), radii, strict=True)
            )
            distance = x.view(-1, 1, 1) + y.view(-1, 1) + z
            edge = 1 - distance + 0.5 * self._smooth(1, self.size, 9)[0]
            weight = torch.sigmoid(edge * float(self.R.uniform(3, 10))) * brain * hit.max()
            scan = scan * (1 - weight) + weight * float(self.R.uniform(0, 1.1))
        return scan

    # --- effects of a scanner

    def _scanned(self, scan: torch.Tensor, kept: torch.Tensor | None, view: torch.Tensor | None) -> torch.Tensor:
        """Partial volume, bias field, gamma, thick slices or large voxels, noise; then scaled by its percentiles."""
        scan = blurred(scan.clamp_min(0), self.R.uniform(0.25, 0.75, 3))
        scan = scan * torch.exp(self._smooth(1, self.size, 4)[0] * float(self.R.uniform(0, 0.5)))
        scan = (scan / scan.max().clamp_min(1e-6)) ** float(np.exp(self.R.normal(0, 0.3)))
        noise = float(self.R.uniform(0, 0.07)) * float(self.R.rand() < 0.9)
        if self.R.rand() < 0.42:
            scan = self._low_resolution(scan, noise)
        elif noise:
            scan = self._rician(scan, noise)
        if kept is not None and self.R.rand() < 0.8:
            scan = scan * kept  # stripped voxels are exactly 0, or have noise
        if view is not None:
            scan = scan * view
        some = scan[::3, ::3, ::3].flatten().sort()[0]
        low, high = (some[int(share * (some.numel() - 1))] for share in (0.01, 0.99))
        return (scan - low) / torch.where(high > low, high - low, torch.ones_like(high))

    def _low_resolution(self, scan: torch.Tensor, noise: float) -> torch.Tensor:
        """As if acquired with slices of up to 8 mm along one axis or voxels of up to 4 mm, interpolated back."""
        acquired = np.full(3, self.spacing)
        if self.R.rand() < 0.6:
            acquired[self.R.randint(3)] = self.R.uniform(self.spacing, max(8.0, self.spacing))
        else:
            acquired[:] = self.R.uniform(self.spacing, max(4.0, self.spacing))
        size = [max(4, round(n * self.spacing / mm)) for n, mm in zip(scan.shape, acquired, strict=True)]
        low = self._rician(interpolate(scan[None, None], size=size, mode="area"), noise)
        return upsampled(low, self.size, align_corners=False)[0, 0]

    def _rician(self, scan: torch.Tensor, std: float) -> torch.Tensor:
        return torch.hypot(scan + std * self._normal(*scan.shape), std * self._normal(*scan.shape))

    # --- random fields and small tensors on the map's device

    def _normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device)

    def _smooth(self, channels: int, size: Sequence[int], knots: int) -> torch.Tensor:
        """Random fields (channels, *size) of standard deviation about 1 with `knots` knots along each axis."""
        coarse = self._normal(1, channels, knots, knots, knots)
        return upsampled(coarse, size, align_corners=True)[0]

    def _upload(self, values: np.ndarray) -> torch.Tensor:
        """float32 on the device; through pinned memory, since a plain copy would wait for the device."""
        tensor = torch.as_tensor(np.ascontiguousarray(values), dtype=torch.float32)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def _constants(self) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The tables by code, and the places of the voxels along each axis, in mm."""
        if self.device not in self._on_device:
            axes = [torch.arange(n, dtype=torch.float32, device=self.device) * self.spacing for n in self.size]
            self._on_device[self.device] = (self.structures.tables.to(self.device), axes)
        return self._on_device[self.device]
