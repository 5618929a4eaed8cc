"""One file, one result: packed and paired files, links, orientations and backgrounds."""

from __future__ import annotations

import bz2
import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path

import itk
import nibabel
import numpy as np
import pytest
import torch

from custom.errors import DataError, MissingDataError
from custom.reading.intensities import with_low_background
from custom.reading.scans import find_scans, read_scan
from custom.reading.volumes import open_volume, read_problem
from custom.transforms import LoadScand

SHAPE = (50, 60, 40)
VOXELS = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) % 977
AFFINE = np.array([[-1.2, 0.1, 0, 30], [0.1, 1.2, 0, -35], [0, 0, 2, -40], [0, 0, 0, 1]])
LAS = "its header has no orientation: x is taken as right to left, y as back to front, z as bottom to top"
LPS = LAS.replace("back to front", "front to back")


def nifti(path: Path, voxels: np.ndarray = VOXELS, affine: np.ndarray = AFFINE) -> Path:
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


def renamed(path: Path, name: str) -> Path:
    return path.rename(path.with_name(name))


def packed(path: Path, name: str, pack: Callable[[bytes], bytes] = gzip.compress) -> Path:
    path.with_name(name).write_bytes(pack(path.read_bytes()))
    path.unlink()
    return path.with_name(name)


def mgh(path: Path, good: bool = True) -> Path:
    nibabel.save(nibabel.MGHImage(VOXELS, AFFINE), path)
    if not good:
        content = bytearray(path.read_bytes())
        struct.pack_into(">h", content, 28, 0)
        path.write_bytes(content)
    return path


def pair(path: Path, given: str = "a.hdr") -> Path:
    nibabel.save(nibabel.Nifti1Pair(VOXELS, AFFINE), path / "a.hdr")
    return path / given


def packed_pair(path: Path, given: str, *files: str) -> Path:
    pair(path)
    for name in files:
        packed(path / name, f"{name}.gz")
    return path / given


def shouted_pair(path: Path) -> Path:
    pair(path)
    for name in ("a.hdr", "a.img"):
        renamed(path / name, name.upper())
    return path / "A.HDR"


def itk_image(path: Path, given: str = "") -> Path:
    image = itk.image_from_array(np.ascontiguousarray(VOXELS.T))
    lps = np.diag([-1, -1, 1, 1]) @ AFFINE
    sizes = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(sizes)
    image.SetOrigin(lps[:3, 3])
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / sizes)))
    itk.imwrite(image, str(path))
    return path.with_name(given or path.name)


def link(path: Path, name: str) -> Path:
    path.with_name(name).symlink_to(path)
    return path.with_name(name)


SAME_SCAN: dict[str, Callable[[Path], Path]] = {
    ".nii": lambda p: nifti(p / "a.nii"),
    ".nii.gz": lambda p: nifti(p / "a.nii.gz"),
    "packed .nii": lambda p: renamed(nifti(p / "a.nii.gz"), "a.nii"),
    "plain .nii.gz": lambda p: renamed(nifti(p / "a.nii"), "a.nii.gz"),
    "bzip2 in .nii.gz": lambda p: packed(nifti(p / "a.nii"), "a.nii.gz", bz2.compress),
    "NIfTI without an ending": lambda p: renamed(nifti(p / "a.nii.gz"), "MD5E-s12--0a"),
    "NIfTI named .mgz": lambda p: renamed(nifti(p / "a.nii.gz"), "a.mgz"),
    ".NII": lambda p: renamed(nifti(p / "a.nii"), "A.NII"),
    "a link": lambda p: link(nifti(p / "a.nii.gz"), "b.nii.gz"),
    "a link of another name": lambda p: link(nifti(p / "a.nii.gz"), "b.nii"),
    ".mgz": lambda p: mgh(p / "a.mgz"),
    "packed .mgh": lambda p: renamed(mgh(p / "a.mgz"), "a.mgh"),
    "plain .mgz": lambda p: renamed(mgh(p / "a.mgh"), "a.mgz"),
    ".hdr": pair,
    ".img": lambda p: pair(p, "a.img"),
    ".HDR": shouted_pair,
    ".hdr.gz": lambda p: packed_pair(p, "a.hdr.gz", "a.hdr", "a.img"),
    ".img.gz": lambda p: packed_pair(p, "a.img.gz", "a.hdr", "a.img"),
    ".hdr with .img.gz": lambda p: packed_pair(p, "a.hdr", "a.img"),
    ".mhd": lambda p: itk_image(p / "a.mhd"),
    ".raw": lambda p: itk_image(p / "a.mhd", "a.raw"),
    ".mha": lambda p: itk_image(p / "a.mha"),
    ".nhdr": lambda p: itk_image(p / "a.nhdr"),
    ".nrrd": lambda p: itk_image(p / "a.nrrd"),
    "NRRD named .nii.gz": lambda p: renamed(itk_image(p / "a.nrrd"), "a.nii.gz"),
}


@pytest.mark.parametrize("make", SAME_SCAN.values(), ids=SAME_SCAN)
def test_one_scan_by_whatever_name(make: Callable[[Path], Path], tmp_path: Path) -> None:
    given = make(tmp_path)
    ((scan, _),) = find_scans(given)
    voxels, affine, warnings = read_scan(scan)
    np.testing.assert_array_equal(voxels, VOXELS)
    np.testing.assert_allclose(affine, AFFINE, atol=1e-4)
    assert warnings == []


@pytest.mark.parametrize("kind", [".nii", ".mgz", ".hdr", ".img", ".mhd", ".raw", ".nhdr", ".hdr.gz"])
def test_a_folder_finds_a_pair_once(kind: str, tmp_path: Path) -> None:
    given = SAME_SCAN[kind](tmp_path)
    assert [path for path, _ in find_scans(tmp_path)] == [path for path, _ in find_scans(given, tmp_path)]


def analyze(path: Path, given: str) -> Path:
    nibabel.save(nibabel.AnalyzeImage(VOXELS, np.diag([-1, 1, 2, 1])), path / "a.img")
    return path / given


def nrrd_without_space(path: Path) -> Path:
    size = " ".join(map(str, SHAPE))
    head = f"NRRD0004\ntype: short\ndimension: 3\nsizes: {size}\nspacings: 1 1 2\nendian: little\nencoding: raw\n\n"
    path.write_bytes(head.encode() + VOXELS.astype("<i2").tobytes(order="F"))
    return path


def meta_without_matrix(path: Path) -> Path:
    head = f"ObjectType = Image\nNDims = 3\nElementSpacing = 1 1 2\nDimSize = {' '.join(map(str, SHAPE))}\n"
    path.write_bytes((head + "ElementType = MET_SHORT\nElementDataFile = LOCAL\n").encode() + VOXELS.tobytes(order="F"))
    return path


NO_ORIENTATION: dict[str, tuple[Callable[[Path], Path], str]] = {
    "Analyze by its .hdr": (lambda p: analyze(p, "a.hdr"), LAS),
    "Analyze by its .img": (lambda p: analyze(p, "a.img"), LAS),
    "NRRD": (lambda p: nrrd_without_space(p / "a.nrrd"), LPS),
    "MetaImage": (lambda p: meta_without_matrix(p / "a.mha"), LPS),
    ".gipl": (lambda p: itk_image(p / "a.gipl"), LPS),
    ".vtk": (lambda p: itk_image(p / "a.vtk"), LPS),
    ".mgh": (
        lambda p: mgh(p / "a.mgh", good=False),
        "its header has no orientation: x is taken as right to left, y as bottom to top, z as front to back",
    ),
    ".mgz": (
        lambda p: packed(mgh(p / "a.mgh", good=False), "a.mgz"),
        "its header has no orientation: x is taken as right to left, y as bottom to top, z as front to back",
    ),
}


@pytest.mark.parametrize(("make", "warning"), NO_ORIENTATION.values(), ids=NO_ORIENTATION)
def test_no_orientation(make: Callable[[Path], Path], warning: str, tmp_path: Path) -> None:
    voxels, _, warnings = read_scan(make(tmp_path))
    np.testing.assert_array_equal(voxels, VOXELS)
    assert warnings[0] == warning


def with_qform(path: Path, sform: np.ndarray, qform: np.ndarray, codes: tuple[int, int] = (1, 1)) -> Path:
    image = nibabel.Nifti1Image(VOXELS, None)
    image.set_qform(qform, codes[1])
    image.set_sform(sform, codes[0])
    nibabel.save(image, path / "a.nii")
    return path / "a.nii"


RAS, FLIPPED, SHIFTED = np.diag([1.0, 1, 2, 1]), np.diag([-1.0, 1, 2, 1]), np.diag([1.0, 1, 2, 1])
SHIFTED[0, 3] = 12


@pytest.mark.parametrize(
    ("sform", "qform", "codes", "used", "expected"),
    [
        (RAS, RAS, (1, 1), RAS, []),
        (RAS, FLIPPED, (1, 1), RAS, ["its sform and its qform place it up to 98 mm apart: the sform is used"]),
        (SHIFTED, RAS, (4, 1), SHIFTED, ["its sform and its qform place it up to 12 mm apart: the sform is used"]),
        (RAS, FLIPPED, (0, 1), FLIPPED, []),
        (RAS, FLIPPED, (2, 0), RAS, []),
        (np.diag([0.0, 0, 0, 1]), RAS, (1, 1), RAS, ["its sform places no voxel: the qform is used"]),
    ],
)
def test_sform_and_qform(
    sform: np.ndarray, qform: np.ndarray, codes: tuple[int, int], used: np.ndarray, expected: list[str], tmp_path: Path
) -> None:
    _, affine, warnings = read_scan(with_qform(tmp_path, sform, qform, codes))
    np.testing.assert_allclose(affine, used, atol=1e-5)
    assert warnings == expected


@pytest.mark.parametrize(
    ("factor", "unit", "warning"),
    [
        (1000, "micron", "its header gives lengths in micrometres: results are in mm"),
        (0.001, "meter", "its header gives lengths in metres: results are in mm"),
        (1, "meter", "its header gives lengths in metres, which no head has: they are taken as mm"),
        (1, "mm", ""),
    ],
)
def test_units(factor: float, unit: str, warning: str, tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VOXELS, np.diag([factor, factor, factor, 1]) @ AFFINE)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    _, affine, warnings = read_scan(tmp_path / "a.nii")
    np.testing.assert_allclose(affine, AFFINE, atol=1e-4)
    assert warnings == [warning] * bool(warning)


def broken_link(path: Path) -> Path:
    (path / "a.nii.gz").symlink_to(path / "gone.nii.gz")
    return path / "a.nii.gz"


def lonely(path: Path, made: Path) -> Path:
    path.unlink()
    return made


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "complex64": (
        lambda p: nifti(p / "a.nii", VOXELS.astype(np.complex64)),
        r"a\.nii is complex, .*\. Save its magnitude",
    ),
    "complex128": (lambda p: nifti(p / "a.nii.gz", VOXELS * 1j), r"a\.nii\.gz is complex"),
    "complex pair": (
        lambda p: nibabel.save(nibabel.Nifti1Pair(VOXELS * 1j, AFFINE), p / "a.hdr") or p / "a.hdr",
        r"a\.hdr is complex",
    ),
    "NaN only": (lambda p: nifti(p / "a.nii", np.full(SHAPE, np.nan, np.float32)), r"holds NaN everywhere\. Export"),
    "first axis of one": (
        lambda p: nifti(p / "a.nii", VOXELS[None]),
        r"has a first axis of one \(1x50x60x40\)\. Save it as 50x60x40",
    ),
    "packed NRRD": (
        lambda p: packed(itk_image(p / "a.nrrd"), "b.nrrd"),
        r"b\.nrrd is NRRD packed by gzip or bzip2\. Unpack",
    ),
    "a link to nothing": (broken_link, r"a\.nii\.gz is a link to .*gone\.nii\.gz, which does not exist\. Fetch"),
    ".img without .hdr": (
        lambda p: lonely(pair(p), p / "a.img"),
        r"a\.hdr does not exist\. An Analyze scan consists of a",
    ),
    ".hdr without .img": (
        lambda p: lonely(pair(p, "a.img"), p / "a.hdr"),
        r"a\.img does not exist\. An Analyze scan consists of a",
    ),
    ".mhd without .raw": (
        lambda p: lonely(itk_image(p / "a.mhd", "a.raw"), p / "a.mhd"),
        r"a\.raw does not exist\. a\.mhd names it",
    ),
    "packed .nii, cut": (
        lambda p: (p / "a.nii").write_bytes(nifti(p / "b.nii.gz").read_bytes()[:900]) and p / "a.nii",
        r"a\.nii can't be read to its end",
    ),
}


@pytest.mark.parametrize(("make", "sentence"), REFUSED.values(), ids=REFUSED)
def test_refused(make: Callable[[Path], Path], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=sentence) as refused:
        read_scan(make(tmp_path))
    assert "\n" not in str(refused.value)


def test_verify_names_complex_files(tmp_path: Path) -> None:
    assert read_problem(nifti(tmp_path / "a.nii", VOXELS * 1j)) == (
        f"{tmp_path}/a.nii holds complex numbers. Save their magnitude."
    )
    assert open_volume(renamed(nifti(tmp_path / "b.nii.gz"), "b.nii")).shape == SHAPE


def brain() -> np.ndarray:
    """A skull-stripped brain of positive values, 0 around it."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), -1)
    radius = np.linalg.norm((grid - np.array(SHAPE) / 2) / (np.array(SHAPE) * 0.4), axis=-1)
    values = np.random.default_rng(0).normal(np.select([radius < 0.5, radius < 0.8], [110, 80], 40), 4)
    return np.where(radius < 1, np.maximum(values, 5), 0).astype(np.float32)


BRAIN = brain()
INSIDE = BRAIN > 0
Z = (BRAIN - BRAIN[INSIDE].mean()) / BRAIN[INSIDE].std()
LEAST = float(Z[INSIDE].min())


@pytest.mark.parametrize(
    ("voxels", "least", "starts"),
    [
        (BRAIN, 0, []),
        (np.where(INSIDE, Z, 0), LEAST, ["its background (0) lies inside the range of the tissue (-"]),
        (
            np.where(INSIDE, Z, np.nan),
            LEAST,
            [f"{(~INSIDE).sum()} voxels are NaN or infinite: they count as background (-"],
        ),
        (
            np.where(INSIDE, Z, np.inf),
            LEAST,
            [f"{(~INSIDE).sum()} voxels are NaN or infinite: they count as background (-"],
        ),
        (np.where(INSIDE, Z, -9), -9, []),
        (
            np.where(INSIDE, BRAIN, 1200),
            BRAIN[INSIDE].min(),
            ["its background (1200) lies above the range of the tissue (24"],
        ),
        (np.where(INSIDE, BRAIN / 200, 0.5), BRAIN[INSIDE].min() / 200, ["its background (0.5) lies inside the range"]),
        (np.where(INSIDE, Z - 100, 0), LEAST - 100, ["its background (0) lies above the range of the tissue"]),
        (np.where(INSIDE, BRAIN, np.nan), 0, [f"{(~INSIDE).sum()} voxels are NaN or infinite: they count as 0"]),
        (BRAIN - 0.5 * (np.roll(BRAIN, 1, 0) > 0) * (BRAIN == 0), -0.5, []),  # ringing around a brain
    ],
    ids=["plain", "0", "NaN", "infinite", "below", "bright", "middle", "negative", "positive, NaN", "ringing"],
)
def test_the_background_is_the_lowest_value(voxels: np.ndarray, least: float, starts: list[str]) -> None:
    voxels = voxels.astype(np.float32)
    original = voxels.copy()
    changed, warnings = with_low_background(voxels)
    assert len(warnings) == len(starts)
    assert all(warning.startswith(start) for warning, start in zip(warnings, starts, strict=True))
    assert changed.min() == pytest.approx(least)
    np.testing.assert_array_equal(changed[INSIDE], original[INSIDE])
    if starts:
        assert np.unique(changed[~INSIDE]).tolist() == [pytest.approx(least)]
    np.testing.assert_array_equal(voxels, original)


def test_single_voxels_of_the_backgrounds_value_stay_tissue() -> None:
    voxels = np.where(INSIDE, Z, 0).astype(np.float32)
    voxels[25, 30, 20] = 0
    assert with_low_background(voxels)[0][25, 30, 20] == 0


def test_a_mask_leaves_the_lowest_value_around_a_z_scored_brain(tmp_path: Path) -> None:
    scan = nifti(tmp_path / "a.nii", Z.astype(np.float32))
    mask = nifti(tmp_path / "mask.nii", INSIDE.astype(np.uint8))
    loaded = LoadScand("image", mask_key="mask")({"image": str(scan), "mask": str(mask)})["image"].as_tensor()[0]
    assert float(loaded[torch.as_tensor(~INSIDE)].max()) == pytest.approx(float(Z.min()))


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    """Links out of the place, to each other, around it, inside it and into the results."""
    outside, place = tmp_path / "outside" / "sub-01", tmp_path / "place"
    for folder in (outside / "anat", place / "sub-02", place / "results"):
        folder.mkdir(parents=True)
    (tmp_path / "elsewhere.nii").touch()
    for path in (outside / "anat/a.nii", place / "sub-02/b.nii", place / "results/b_seg2.nii"):
        path.touch()
    for name, target in {
        "again": outside, "circle": place, "copy": place / "sub-02", "old": place / "results", "sub-01": outside,
        "sub-02/up": tmp_path, "broken": tmp_path / "nowhere",
    }.items():  # fmt: skip
        (place / name).symlink_to(target)
    (outside / "back").symlink_to(place)
    (outside / "round").symlink_to(outside)
    found = find_scans(place, without=place / "results")
    assert [str(inside) for _, inside in found] == ["again/anat/a.nii", "sub-02/b.nii"]
    (outside / "back").unlink()
    relative = tmp_path / "relative"
    relative.symlink_to(os.path.relpath(outside, tmp_path))
    assert [str(inside) for _, inside in find_scans(relative)] == ["anat/a.nii"]


def test_a_link_to_derivatives_is_meant(tmp_path: Path) -> None:
    (tmp_path / "derivatives" / "x").mkdir(parents=True)
    (tmp_path / "derivatives" / "x" / "a.nii").touch()
    (tmp_path / "mine").symlink_to(tmp_path / "derivatives" / "x")
    assert [str(inside) for _, inside in find_scans(tmp_path)] == ["mine/a.nii"]


def test_a_broken_link_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        MissingDataError, match=r"a\.nii\.gz is a link to .*gone\.nii\.gz, which does not exist\. Fetch"
    ):
        find_scans(broken_link(tmp_path))
