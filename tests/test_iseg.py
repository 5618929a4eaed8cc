"""The iSeg data set and its sample."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from custom.datasets import iseg
from custom.errors import DataError, MissingDataError
from custom.samples import iseg as sample


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def test_sample_has_the_layout(iseg_dir: Path) -> None:
    expected = {f"subject-{n}-{role}" for n in range(1, 11) for role in ("T1", "T2", "label")}
    expected |= {f"subject-{n}-{role}" for n in (11, 12, 13) for role in ("T1", "T2")}
    assert {path.stem for path in iseg_dir.glob("*.hdr")} == expected
    assert {path.stem for path in iseg_dir.glob("*.img")} == expected
    for role in ("T1", "T2", "label"):
        image = nibabel.load(iseg_dir / f"subject-1-{role}.hdr")
        assert image.shape == (50, 59, 48, 1)
        assert image.header.get_zooms()[:3] == (4, 4, 4)
    assert set(np.unique(voxels(iseg_dir / "subject-1-label.hdr"))) == {0, 10, 150, 250}
    assert iseg.verify(iseg_dir) == []


def test_sample_is_seeded_and_subjects_differ(iseg_dir: Path, tmp_path: Path) -> None:
    again, other = sample.write(tmp_path / "a", spacing=4), sample.write(tmp_path / "b", spacing=4, seed=1)
    name = "subject-3-T1.img"
    assert (again / name).read_bytes() == (iseg_dir / name).read_bytes() != (other / name).read_bytes()
    first, second = (voxels(iseg_dir / f"subject-{n}-label.hdr") for n in (1, 2))
    assert 0.05 < np.mean(first != second) < 0.5


@pytest.mark.parametrize(("contrast", "nearly_equal"), [("infant", True), ("adult", False)])
def test_contrast(contrast: str, nearly_equal: bool) -> None:
    """Grey and white matter differ by less than two deviations of the least noise, for infants only."""
    means = sample.TISSUE_MEANS[contrast]
    assert set(means) == {"T1", "T2"}
    for csf, grey, white in means.values():
        brightest = max(csf, grey, white)
        assert (abs(grey - white) < 2 * min(sample.NOISE) * brightest) == nearly_equal


def test_sample_contrast_in_the_files(iseg_dir: Path) -> None:
    """T1: CSF is dark, T2: CSF is bright, and grey and white matter overlap in both."""
    label = voxels(iseg_dir / "subject-1-label.hdr")
    for role, fluid_is_bright in (("T1", False), ("T2", True)):
        scan = voxels(iseg_dir / f"subject-1-{role}.hdr")
        assert (scan[label == 0] == 0).all()
        mean = {code: scan[label == code].mean() for code in (10, 150, 250)}
        assert (mean[10] > max(mean[150], mean[250])) == fluid_is_bright
        assert abs(mean[150] - mean[250]) < 2 * scan[label == 250].std()


def test_sample_never_overwrites(iseg_dir: Path, tmp_path: Path) -> None:
    before = (iseg_dir / "sample.json").stat().st_mtime_ns
    assert sample.write(iseg_dir, spacing=4) == iseg_dir
    assert (iseg_dir / "sample.json").stat().st_mtime_ns == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="mine is not empty and holds no sample of this kind"):
        sample.write(tmp_path / "mine", spacing=4)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    with pytest.raises(ValueError, match=r"contrast must be one of .* got 'teen'"):
        sample.write(tmp_path / "new", contrast="teen")
    assert not (tmp_path / "new").exists()


def numbers(items: list[dict]) -> list[int]:
    return [int(item["subject"].split("-")[1]) for item in items]


@pytest.mark.parametrize(
    ("fold", "training", "validation"),
    [(0, [3, 4, 5, 6, 8, 9, 10], [2, 7]), (1, [2, 4, 5, 6, 7, 9, 10], [3, 8]), (4, [2, 3, 4, 5, 7, 8, 9, 10], [6])],
)
def test_split_is_by_person(iseg_dir: Path, fold: int, training: list[int], validation: list[int]) -> None:
    assert numbers(iseg.datalist(iseg_dir, "training", fold)) == training
    assert numbers(iseg.datalist(iseg_dir, "validation", fold)) == validation
    assert numbers(iseg.datalist(iseg_dir, "test", fold)) == [1]
    assert numbers(iseg.datalist(iseg_dir, "unlabelled", fold)) == [11, 12, 13]


def test_files_of_an_item_are_one_persons(iseg_dir: Path) -> None:
    items = iseg.datalist(iseg_dir, "training")
    assert len(items) == 7
    for item in items:
        names = [Path(path).name for path in [*item["image"], item["label"]]]
        assert names == [f"{item['subject']}-{role}.hdr" for role in ("T1", "T2", "label")]


def test_subfolders_and_nifti(iseg_dir: Path, tmp_path: Path) -> None:
    for folder, number in (("iSeg-2019-Training", 1), ("iSeg-2019-Validation", 11)):
        (tmp_path / folder).mkdir()
        for path in iseg_dir.glob(f"subject-{number}-*.hdr"):
            source = nibabel.load(path)
            nifti = nibabel.Nifti1Image(np.asarray(source.dataobj), source.affine)
            nibabel.save(nifti, tmp_path / folder / f"{path.stem}.nii.gz")
    assert numbers(iseg.datalist(tmp_path, "test")) == [1]
    assert numbers(iseg.datalist(tmp_path, "unlabelled")) == [11]
    assert iseg.verify(tmp_path) == []


def test_wrong_arguments(iseg_dir: Path) -> None:
    with pytest.raises(ValueError, match="got 'train'"):
        iseg.datalist(iseg_dir, "train")
    with pytest.raises(ValueError, match="fold must be 0 to 4, got 5"):
        iseg.datalist(iseg_dir, "training", 5)


def remove(*names: str) -> Callable[[Path], object]:
    return lambda folder: [(folder / name).unlink() for name in names]


def truncate(folder: Path) -> None:
    path = folder / "subject-2-T2.img"
    path.write_bytes(path.read_bytes()[:1000])


def truncate_gzip(folder: Path) -> None:
    scan, affine = voxels(folder / "subject-2-T2.hdr").copy(), nibabel.load(folder / "subject-2-T2.hdr").affine
    for suffix in (".hdr", ".img"):
        (folder / "subject-2-T2").with_suffix(suffix).unlink()
    path = folder / "subject-2-T2.nii.gz"
    path.write_bytes(gzip.compress(nibabel.Nifti1Image(scan, affine).to_bytes())[:9000])


def empty_header(folder: Path) -> None:
    (folder / "subject-2-T2.hdr").write_bytes(b"")


def rewrite(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        image = nibabel.AnalyzeImage(change(voxels(folder / name).copy()), None)
        image.header.set_zooms((4, 4, 4, 1))
        nibabel.save(image, folder / name)

    return spoil


def only_nan(array: np.ndarray) -> np.ndarray:
    return np.full_like(array, np.nan, dtype=np.float32)


def with_code_99(array: np.ndarray) -> np.ndarray:
    array[20, 20, 20] = 99
    return array


def duplicate(folder: Path) -> None:
    (folder / "copy").mkdir()
    for suffix in (".hdr", ".img"):
        shutil.copy(folder / f"subject-2-T1{suffix}", folder / "copy")


def flipped(folder: Path) -> None:
    """Both as NIfTI of one shape, T2 with its first axis the other way round."""
    for role, x in (("T1", 4), ("T2", -4)):
        scan = voxels(folder / f"subject-2-{role}.hdr").copy()
        for suffix in (".hdr", ".img"):
            (folder / f"subject-2-{role}").with_suffix(suffix).unlink()
        nibabel.save(nibabel.Nifti1Image(scan, np.diag([x, 4, 4, 1])), folder / f"subject-2-{role}.nii.gz")
    for suffix in (".hdr", ".img"):
        (folder / "subject-2-label").with_suffix(suffix).unlink()


BAD_DATA = {
    "no T2": (remove("subject-2-T2.hdr", "subject-2-T2.img"), r"subject-2 has no T2 file .*\. Add subject-2-T2"),
    "no img": (
        remove("subject-2-T2.img"),
        r"subject-2-T2\.img does not exist\. An Analyze scan consists of a \.hdr and an \.img",
    ),
    "no header": (
        remove("subject-2-label.hdr"),
        r"subject-2-label\.hdr does not exist\. Correct its path, put the file back",
    ),
    "truncated img": (truncate, r"subject-2-T2\.img is cut short \(1000 of \d+ bytes\)\. Copy it again"),
    "truncated nii.gz": (truncate_gzip, r"subject-2-T2\.nii\.gz can't be read to its end .*\. Copy the file again"),
    "empty header": (empty_header, r"subject-2-T2\.hdr is empty \(0 bytes\)\. Copy it again"),
    "other shape": (
        rewrite("subject-2-T2.hdr", lambda array: array[:-1]),
        r"subject-2-T2\.hdr has the shape \(49, 59, 48\) but .*subject-2-T1\.hdr has \(50, 59, 48\)\. Resample",
    ),
    "NaN": (rewrite("subject-2-T2.hdr", only_nan), r"subject-2-T2\.hdr holds NaN everywhere\. Export"),
    "all zero": (rewrite("subject-2-T2.hdr", np.zeros_like), r"subject-2-T2\.hdr holds nothing but zeros\. Export"),
    "unknown code": (
        rewrite("subject-2-label.hdr", with_code_99),
        r"subject-2-label\.hdr holds the label codes \[99(\.0)?\], but only \[0, 10, 150, 250\] are known\. Correct",
    ),
    "duplicate subject": (duplicate, r"subject-2-T1\.hdr and .*subject-2-T1\.hdr are the same subject's T1\. Keep"),
}


@pytest.mark.parametrize(("spoil", "sentence"), BAD_DATA.values(), ids=BAD_DATA)
def test_verify_names_the_file(spoil: Callable[[Path], object], sentence: str, iseg_copy: Path) -> None:
    spoil(iseg_copy)
    problems = iseg.verify(iseg_copy)
    assert len(problems) == 1
    with pytest.raises(DataError, match=sentence):
        raise DataError(problems[0])


def test_a_flipped_affine_is_seen(iseg_copy: Path) -> None:
    flipped(iseg_copy)
    (problem,) = iseg.verify(iseg_copy)
    assert "lie differently in space (their affines). Resample them to one grid" in problem
    with pytest.raises(DataError, match="lie differently in space"):
        iseg.datalist(iseg_copy, "unlabelled")


def test_verify_lists_all_problems_at_once(iseg_copy: Path) -> None:
    remove("subject-3-T1.hdr", "subject-3-T1.img")(iseg_copy)
    truncate(iseg_copy)
    rewrite("subject-4-label.hdr", with_code_99)(iseg_copy)
    assert len(iseg.verify(iseg_copy)) == 3


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()], ids=["missing", "empty"])
def test_missing_and_empty_folders(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "data")
    with pytest.raises(MissingDataError, match=r"data.*\. Ask for iSeg at https://iseg2019.web.unc.edu, or write"):
        iseg.datalist(tmp_path / "data", "training")
