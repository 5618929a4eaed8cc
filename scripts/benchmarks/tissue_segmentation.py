"""The shipped tissue network on real scans, beside an intensity clustering: Dice as a Markdown table.

    python scripts/benchmarks/tissue_segmentation.py [--t1_dcmqa DIR] [--t1_studyforrest DIR] [--ckpt_path model.pt]

MNI152 T1 comes with nilearn; its reference labels are its own GM and WM maps. DIR of t1_dcmqa: T1w_brain.nii.gz (the
skull-stripped T1w of dcm_qa, BSD-2-Clause) and dseg_fast.nii.gz (FSL FAST's labels, 1 CSF, 2 GM, 3 WM). DIR of
t1_studyforrest: sub-02_T1w_1mm_defaced.nii.gz and sub-02_brainmask_approx.nii.gz (a warped template mask). Each scan is
also segmented with its contrast inverted, with gamma 0.5 and 2, with a strong bias field, and at 3 mm. The clustering
is a Gaussian mixture: of three inside the mask of the reference, or of four over the whole volume; the reference names
its clusters. "all tissue" is all labels against all of the reference, "brain" the brain mask (without fluid around the
brain) against them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
from nibabel.processing import resample_to_output
from scipy import ndimage

from custom.baselines.clustering import cluster_tissues
from custom.datasets import freesurfer
from custom.metrics import dice_by_name
from custom.running import Predictor
from custom.running.bundles import config_files
from custom.samples import mni152
from custom.transforms.brain_masks import brain_masks

LABELS = mni152.LABELS


def _inverted(scan: np.ndarray) -> np.ndarray:
    inside = scan > 0
    low, high = np.percentile(scan[inside], [0.5, 99.5])
    return np.where(inside, np.clip(high + low - scan, 1e-3 * high, None), 0)


def _gamma(exponent: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda scan: scan.max() * (scan / scan.max()) ** exponent


def _biased(scan: np.ndarray) -> np.ndarray:
    """Multiplied by e^-0.6 to e^0.6 from one corner of the volume to the other: a factor of 3.3 over all."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in scan.shape], indexing="ij")
    return scan * np.exp(0.6 * sum(axes) / 3)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda scan: scan,
    "inverted": _inverted,
    "gamma 0.5": _gamma(0.5),
    "gamma 2": _gamma(2.0),
    "bias field": _biased,
}


def changed(
    scan: nibabel.Nifti1Image, reference: nibabel.Nifti1Image
) -> Iterator[tuple[str, nibabel.Nifti1Image, np.ndarray]]:
    """The name of a change, the changed scan, and the reference labels on its grid."""
    voxels = np.clip(scan.get_fdata(dtype=np.float32), 0, None)
    labels = np.asarray(reference.dataobj).round().astype(np.uint8)
    for name, change in CHANGES.items():
        yield name, nibabel.Nifti1Image(change(voxels).astype(np.float32), scan.affine), labels
    blurred = ndimage.gaussian_filter(voxels, 3 / 2.355)  # to the resolution of 3 mm
    fractions = [_at_3_mm(ndimage.uniform_filter((labels == code).astype(np.float32), 3), scan) for code in LABELS]
    labels_at_3_mm = np.argmax([fraction.get_fdata(dtype=np.float32) for fraction in fractions], axis=0)
    yield "3 mm", _at_3_mm(blurred, scan), labels_at_3_mm.astype(np.uint8)


def _at_3_mm(voxels: np.ndarray, scan: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    coarse: nibabel.Nifti1Image = resample_to_output(nibabel.Nifti1Image(voxels, scan.affine), (3, 3, 3), order=1)
    return coarse


def scans(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, nibabel.Nifti1Image, nibabel.Nifti1Image]]:
    mni152.write(folder / "mni152")
    yield "MNI152", load_nifti(folder / "mni152" / mni152.T1), load_nifti(folder / "mni152" / mni152.TRUTH)
    if options.t1_dcmqa:
        scan, reference = (options.t1_dcmqa / name for name in ("T1w_brain.nii.gz", "dseg_fast.nii.gz"))
        yield "t1_dcmqa", load_nifti(scan), load_nifti(reference)
    if options.t1_studyforrest:
        scan = options.t1_studyforrest / "sub-02_T1w_1mm_defaced.nii.gz"
        reference = options.t1_studyforrest / "sub-02_brainmask_approx.nii.gz"
        yield "t1_studyforrest", load_nifti(scan), load_nifti(reference)


def load_nifti(path: Path) -> nibabel.Nifti1Image:
    image = nibabel.load(path)
    assert isinstance(image, nibabel.Nifti1Image)
    return image


def clustered(scan: np.ndarray, reference: np.ndarray) -> dict[str, dict[str, float]]:
    whole = cluster_tissues(scan[None], reference + 1) - 1  # with a cluster for the background
    return {
        "clustering, mask given": dice_by_name(cluster_tissues(scan[None], reference), reference, LABELS),
        "clustering, no mask": dice_by_name(whole.astype(np.uint8), reference, LABELS),
    }


def _dice(mask: np.ndarray, reference: np.ndarray) -> float:
    return float(2 * (mask & reference).sum() / (mask.sum() + reference.sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--t1_dcmqa", type=Path)
    parser.add_argument("--t1_studyforrest", type=Path)
    parser.add_argument("--ckpt_path")
    parser.add_argument("--no_clustering", action="store_true", help="the network alone, in a minute")
    options = parser.parse_args()
    settings = {"ckpt_path": options.ckpt_path} if options.ckpt_path else {}
    predictor = Predictor(config_files("brain_mri_tissue", "inference.json"), **settings)
    print(f"weights {predictor.sha256[:12]}\n")
    print("| scan | change | method | CSF | GM | WM | all tissue | brain |\n|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, scan, reference in scans(options, folder):
            for change, changed_scan, labels in changed(scan, reference):
                nibabel.save(changed_scan, folder / "scan.nii.gz")
                item = predictor(folder / "scan.nii.gz")
                tissues = item["pred"]
                brain, _ = brain_masks(item["structures"], changed_scan.affine, freesurfer.AROUND_BRAIN)
                whole = {"all": _dice(tissues > 0, labels > 0), "brain": _dice(brain, labels > 0)}
                rows = {"network": dice_by_name(tissues, labels, LABELS) | whole}
                only_mask = labels.max() == 1
                if not options.no_clustering and not only_mask:
                    rows |= clustered(changed_scan.get_fdata(dtype=np.float32), labels)
                for method, dice in rows.items():
                    cells = ["" if only_mask else f"{dice[tissue]:.3f}" for tissue in ("CSF", "GM", "WM")]
                    cells += [f"{dice[mask]:.3f}" if mask in dice else "" for mask in ("all", "brain")]
                    print(f"| {name} | {change} | {method} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
