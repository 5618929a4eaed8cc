"""One file, one result: packed and paired files, links, orientations and backgrounds."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch

from custom.commands.segment import sha256_of_scan
from custom.errors import DataError, MissingDataError
from custom.reading.formats import all_files
from custom.reading.intensities import with_low_background
from custom.reading.scans import find_scans, read_scan
from custom.reading.volumes import open_volume, read_problem
from custom.transforms import LoadScand, LoadVolumesd
from tests.dicom_files import write_series, write_slice

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
    image = SimpleITK.GetImageFromArray(VOXELS.T)
    lps = np.diag([-1, -1, 1, 1]) @ AFFINE
    sizes = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(sizes)
    image.SetOrigin(lps[:3, 3])
    image.SetDirection((lps[:3, :3] / sizes).ravel())
    SimpleITK.WriteImage(image, str(path))
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


def other_ends(path: Path, name: str, before: bytes, after: bytes) -> Path:
    (path / name).write_bytes((path / name).read_bytes().replace(before, after))
    return path / name


def slices_of_a_list(path: Path) -> Path:
    """A MetaImage whose voxels lie in one file for each slice."""
    header = itk_image(path / "a.mhd").read_text()
    (path / "a.raw").unlink()
    for k in range(SHAPE[2]):
        (path / f"{k:02d}.raw").write_bytes(np.ascontiguousarray(VOXELS[:, :, k].T).tobytes())
    names = "\n".join(f"{k:02d}.raw" for k in range(SHAPE[2]))
    (path / "a.mhd").write_text(header.replace("= a.raw", f"= LIST\n{names}"))
    return path / "a.mhd"


SEVERAL_FILES: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    ".hdr": (pair, ["a.hdr", "a.img"]),
    ".hdr, Analyze": (lambda p: analyze(p, "a.hdr"), ["a.hdr", "a.img"]),
    ".HDR": (shouted_pair, ["A.HDR", "A.IMG"]),
    ".hdr with .img.gz": (lambda p: packed_pair(p, "a.hdr", "a.img"), ["a.hdr", "a.img.gz"]),
    ".mhd": (SAME_SCAN[".mhd"], ["a.mhd", "a.raw"]),
    ".mhd with \\r\\n": (
        lambda p: other_ends(SAME_SCAN[".mhd"](p).parent, "a.mhd", b"\n", b"\r\n"),
        ["a.mhd", "a.raw"],
    ),
    ".mhd with a list": (slices_of_a_list, ["a.mhd", *(f"{k:02d}.raw" for k in range(SHAPE[2]))]),
    ".nhdr": (SAME_SCAN[".nhdr"], ["a.nhdr", "a.raw"]),
    ".nhdr with \\r\\n": (
        lambda p: other_ends(SAME_SCAN[".nhdr"](p).parent, "a.nhdr", b"\n", b"\r\n"),
        ["a.nhdr", "a.raw"],
    ),
    ".nhdr with datafile": (
        lambda p: other_ends(SAME_SCAN[".nhdr"](p).parent, "a.nhdr", b"data file:", b"datafile:"),
        ["a.nhdr", "a.raw"],
    ),
    "DICOM": (lambda p: write_series(p / "s", slices=range(3)), ["s/IM000", "s/IM001", "s/IM002"]),
    ".nii": (SAME_SCAN[".nii"], ["a.nii"]),
    ".mha": (SAME_SCAN[".mha"], ["a.mha"]),
    ".nrrd": (SAME_SCAN[".nrrd"], ["a.nrrd"]),
}


@pytest.mark.parametrize(("make", "names"), SEVERAL_FILES.values(), ids=SEVERAL_FILES)
def test_every_file_counts_in_a_scans_checksum(make: Callable[[Path], Path], names: list[str], tmp_path: Path) -> None:
    """Another first byte in any file is another scan; files beside it are not of it."""
    scan = make(tmp_path)
    (tmp_path / "b.raw").write_bytes(b"of another scan")
    assert all_files(scan) == [tmp_path / name for name in names]
    known = {sha256_of_scan(scan)}
    for count, name in enumerate(names, start=2):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(bytes([content[0] ^ 1]) + content[1:])
        known.add(sha256_of_scan(scan))
        assert len(known) == count
        (tmp_path / name).write_bytes(content)


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


def pipe(path: Path, made: Path) -> Path:
    path.unlink()
    os.mkfifo(path)
    return made


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def zipped(path: Path) -> Path:
    with zipfile.ZipFile(path.with_suffix(".gz"), "w") as archive:
        archive.write(path, path.name)
    return path.with_suffix(".gz")


def with_bytes(path: Path, at: int, content: bytes) -> Path:
    old = path.read_bytes()
    at = at % len(old)
    return written(path, old[:at] + content + old[at + len(content) :])


def packed_meta(path: Path, share: float) -> Path:
    """A MetaImage with packed voxels, of which only the first share is there."""
    image = SimpleITK.ReadImage(str(itk_image(path.with_suffix(".nrrd"))))
    SimpleITK.WriteImage(image, str(path), useCompression=True)
    voxels = path if path.suffix == ".mha" else path.with_suffix(".zraw")
    voxels.write_bytes(voxels.read_bytes()[: int(share * voxels.stat().st_size)])
    return path


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "xz": (lambda p: packed(nifti(p / "a.nii"), "a.nii.gz", lzma.compress), r"a\.nii\.gz is packed by xz\. Unpack it"),
    "zip": (lambda p: zipped(nifti(p / "a.nii")), r"a\.gz is a zip archive\. Unpack it"),
    "packed twice": (
        lambda p: packed(nifti(p / "a.nii.gz"), "b.nii.gz"),
        r"b\.nii\.gz is packed twice by gzip\. Unpack it",
    ),
    "a web page": (
        lambda p: written(p / "a.nii.gz", b"<!DOCTYPE html>\n<html> Sign in"),
        r"a\.nii\.gz is a text \('<!DOCTYPE html> <html> Sign in'\.\.\.\) and no scan\. Download",
    ),
    "a pointer of Git LFS": (
        lambda p: written(p / "a.nrrd", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        r"a\.nrrd is only a pointer of Git LFS\. Fetch the file itself with git lfs pull",
    ),
    "a pointer of git-annex": (
        lambda p: written(p / "a.nii", b"/annex/objects/MD5E-s12--0a.nii\n"),
        r"a\.nii is only a pointer of git-annex\. Fetch .* datalad get",
    ),
    "empty": (lambda p: written(p / "a.mgz", b""), r"a\.mgz is empty \(0 bytes\)\. Copy it again"),
    "a wrong checksum": (
        lambda p: with_bytes(nifti(p / "a.nii.gz"), -8, b"\0\1\2\3"),
        r"a\.nii\.gz can't be read to its end \(CRC check failed .*\)\. Copy the file again",
    ),
    "voxels that begin in the header": (
        lambda p: with_bytes(nifti(p / "a.nii"), 108, struct.pack("<f", 0)),
        r"a\.nii says that its voxels begin at byte 0, inside its header\. Set vox_offset in the header to 352",
    ),
    "packed .mha, cut": (
        lambda p: packed_meta(p / "a.mha", 0.9),
        r"a\.mha is cut short \(\d+ of 240000 bytes of voxels\)\. Copy",
    ),
    "packed .mhd, cut": (lambda p: packed_meta(p / "a.mhd", 0.5), r"a\.zraw is cut short \(\d+ of 240000 bytes"),
    ".mhd, cut": (
        lambda p: written(itk_image(p / "a.mhd", "a.raw"), b"\1" * 1000).with_suffix(".mhd"),
        r"a\.raw is cut short \(1000 of 240000 bytes of voxels\)\. Copy it again",
    ),
    ".mhd with a list, a file is gone": (
        lambda p: lonely(slices_of_a_list(p).with_name("07.raw"), p / "a.mhd"),
        r"07\.raw does not exist\. a\.mhd names it as the file of its voxels",
    ),
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
    ".nhdr without .raw": (
        lambda p: lonely(itk_image(p / "a.nhdr").with_suffix(".raw"), p / "a.nhdr"),
        r"a\.raw does not exist\. a\.nhdr names it",
    ),
    ".nhdr whose voxels are a pipe": (
        lambda p: pipe(itk_image(p / "a.nhdr").with_suffix(".raw"), p / "a.nhdr"),
        r"a\.raw is a pipe or a device, and no file\. Leave it out",
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


READ_ALIKE = [
    "xz", "packed twice", "a pointer of git-annex", "empty", "a wrong checksum", "voxels that begin in the header",
    "packed .mha, cut", "packed .mhd, cut", ".mhd, cut",
]  # fmt: skip


@pytest.mark.parametrize("name", READ_ALIKE)
def test_verify_and_training_refuse_the_same(name: str, tmp_path: Path) -> None:
    make, sentence = REFUSED[name]
    path = make(tmp_path)
    problem = read_problem(path)
    assert problem is not None
    assert re.search(sentence, problem)
    with pytest.raises(DataError, match=sentence):
        LoadVolumesd("image")({"image": str(path)})


@pytest.mark.parametrize("least", [0.0, -5.0])
def test_nan_counts_as_background_everywhere(least: float, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SPM and FSL write NaN around a brain. `verify`, training and segmenting take it for the background."""
    scan = np.where(INSIDE, BRAIN, np.nan).astype(np.float32)
    scan[25, 30, 20] = least
    path = nifti(tmp_path / "a.nii.gz", scan)
    assert read_problem(path) is None
    expected = np.where(INSIDE, scan, least)
    np.testing.assert_array_equal(LoadVolumesd("image")({"image": str(path)})["image"], expected)
    assert f"a.nii.gz: {(~INSIDE).sum()} voxels are NaN or infinite: they count as" in caplog.text
    np.testing.assert_array_equal(LoadScand("image")({"image": path})["image"][0], expected)


def test_nan_in_one_of_two_channels(tmp_path: Path) -> None:
    paths = [nifti(tmp_path / "a.nii"), nifti(tmp_path / "b.nii", np.where(VOXELS > 3, VOXELS, np.nan))]
    loaded = LoadVolumesd("image")({"image": [str(path) for path in paths]})["image"]
    np.testing.assert_array_equal(loaded, np.stack([VOXELS, np.where(VOXELS > 3, VOXELS, 0)]))


def test_one_value_everywhere_is_refused_alike(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii", np.full(SHAPE, 7, np.float32))
    sentence = f"{path} holds the value 7 everywhere. Export the scan again."
    assert read_problem(path) == sentence
    for load in (LoadVolumesd("image"), LoadScand("image")):
        with pytest.raises(DataError, match=re.escape(sentence)):
            load({"image": str(path)})


def test_voxel_sizes_that_contradict_the_affine(tmp_path: Path) -> None:
    path = with_bytes(nifti(tmp_path / "a.nii"), 80, struct.pack("<3f", 1, 1, 2))
    _, affine, warnings = read_scan(path)
    np.testing.assert_allclose(affine, AFFINE, atol=1e-4)
    assert warnings == [
        "its header gives voxels the sizes 1 x 1 x 2 (pixdim) and 1.2 x 1.2 x 2 (sform): the sform is used"
    ]


def test_places_of_one_file_are_one_scan_inside_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ".." in a place, results would be written beside their folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = nifti(tmp_path / "here/a.nii")
    assert find_scans("a.nii", "../here/a.nii", "./a.nii", tmp_path / "here/../here") == [(path, Path("a.nii"))]
    assert find_scans("..") == [(path, Path("here/a.nii"))]


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


def with_stray_dicom(place: Path) -> None:
    for name in ("a.nii.gz", "sub-2/b.nii", "sub-10/anat/c.nii"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        nifti(place / name)
    write_slice(place / "IM001", 0)


def a_series_alone(place: Path) -> None:
    write_series(place, slices=range(2))


def a_series_above_others(place: Path) -> None:
    write_series(place, slices=range(2))
    write_series(place / "two", slices=range(2))
    (place / "sub-1").mkdir()
    nifti(place / "sub-1" / "a.nii")


@pytest.mark.parametrize(
    ("make", "expected", "warned"),
    [
        (with_stray_dicom, ["a.nii.gz", "sub-2/b.nii", "sub-10/anat/c.nii"], True),
        (a_series_alone, ["place"], False),
        (a_series_above_others, ["place", "sub-1/a.nii", "two"], False),
    ],
)
def test_dicom_beside_other_scans(
    make: Callable[[Path], None], expected: list[str], warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "place"
    make(place)
    found = find_scans(place)
    assert [str(inside) for _, inside in found] == expected
    assert [path for path, _ in found] == [place if name == "place" else place / name for name in expected]
    assert ("place holds DICOM files beside other scans" in caplog.text) == warned


def no_permission(path: Path) -> None:
    path.write_bytes(b"secret")
    path.chmod(0)


def failing_disk(path: Path) -> None:
    """A file that opens, but reading it fails, for root too: the first page of a process's memory."""
    path.symlink_to("/proc/self/mem")


UNREADABLE: dict[str, tuple[Callable[[Path], None], str]] = {  # root may read every file
    **({} if os.geteuid() == 0 else {"no permission": (no_permission, r"cannot be read (Permission denied)")}),
    "failing disk": (failing_disk, r"cannot be read (Input/output error)"),
    "a pipe": (os.mkfifo, ""),
    "a link to nothing": (lambda path: path.symlink_to("nowhere"), ""),
}


@pytest.mark.parametrize(("make", "warning"), UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_file_stops_nothing(
    make: Callable[[Path], None], warning: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It comes first in a folder of NIfTI, in one of DICOM, and in one of its own."""
    write_series(tmp_path / "series")
    for name in ("series", "plain", "alone"):
        (tmp_path / name).mkdir(exist_ok=True)
        make(tmp_path / name / "A")
    nifti(tmp_path / "plain" / "b.nii")
    assert [str(inside) for _, inside in find_scans(tmp_path)] == ["plain/b.nii", "series"]
    named = [message for message in caplog.messages if warning and warning in message]
    assert len(named) == 3 * bool(warning)
    assert all(f"{tmp_path / name / 'A'}" in "".join(named) for name in ("series", "plain", "alone") if warning)


@pytest.mark.parametrize("name", ["a.hdr", "a.img", "a.nii"])
@pytest.mark.parametrize("make", [no_permission, failing_disk])
def test_an_unreadable_file_that_is_given_is_left_to_reading(
    make: Callable[[Path], None], name: str, tmp_path: Path
) -> None:
    make(tmp_path / name)
    other = nifti(tmp_path / "b.nii")
    assert [path for path, _ in find_scans(tmp_path / name, other)] == [tmp_path / name, other]


@pytest.mark.parametrize(("size", "block"), [(160, 3), (200, 20)])
def test_bzip2_may_pack_a_mask_tighter_than_gzip_can(size: int, block: int, tmp_path: Path) -> None:
    voxels = np.zeros((size, size, size), np.uint8)
    voxels[10 : 10 + block, 20 : 20 + block, 30 : 30 + block] = 1
    mask = packed(nifti(tmp_path / "mask.nii", voxels), "mask.nii.bz2", bz2.compress)
    assert mask.stat().st_size * 1032 < size**3
    opened = np.asarray(open_volume(mask).dataobj)
    assert opened.shape == (size, size, size)
    assert opened.sum() == block**3
    assert opened[10, 20, 30] == opened[9 + block, 19 + block, 29 + block] == 1
    assert read_scan(mask)[0].sum() == block**3


def test_a_broken_link_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        MissingDataError, match=r"a\.nii\.gz is a link to .*gone\.nii\.gz, which does not exist\. Fetch"
    ):
        find_scans(broken_link(tmp_path))
