"""DICOM series: one volume, a warning about what was left out, or a refusal that names a file."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from custom.errors import DataError
from custom.reading.dicom import read_dicom
from custom.reading.dicom_header import is_dicom, read_header
from custom.reading.scans import find_scans, read_scan
from tests.dicom_files import (
    BIG,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    REPORT,
    SHAPE,
    VOXELS,
    Tags,
    as_jpeg,
    as_rle,
    element,
    encapsulated,
    slice_tags,
    write,
    write_enhanced,
    write_series,
    write_slice,
)

N = SHAPE[2]
AFFINE = [[-5, 0, 0, 100], [0, -5, 0, 120], [0, 0, 5, -60], [0, 0, 0, 1]]  # of dicom_files' slices, in RAS
THICK = "its voxels are up to 5 mm long"
PRIVATE = "1.3.46.670589.11.0.0.12.2"  # Philips's MR spectrum


def echo(milliseconds: float) -> Tags:
    return {0x00189114: ("SQ", [{0x00189082: ("FD", milliseconds)}])}


def stack(name: str, time: int = 1) -> Tags:
    return {0x00209111: ("SQ", [{0x00209056: ("SH", name), 0x00209128: ("UL", time)}])}


def beside(folder: Path, **files: bytes) -> Path:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def written_in_turns(folder: Path, tag: int, kind: str, *values: Any) -> Path:
    """A series in which a tag takes one value after the other."""
    for k in range(N):
        write_slice(folder / f"IM{k:03d}", k, tags={tag: (kind, values[k % len(values)])})
    return folder


def with_report(folder: Path) -> Path:
    write(folder / "IM999", {0x00080016: ("UI", REPORT), 0x00080018: ("UI", "1.9"), 0x00080060: ("CS", "SR")})
    return write_series(folder)


def with_private(folder: Path) -> Path:
    """Beside the series an object of Philips's own, without pixels, with the series' UID."""
    tags = {
        0x00080016: ("UI", PRIVATE),
        0x00080018: ("UI", "1.9"),
        0x00080060: ("CS", "MR"),
        0x0020000E: ("UI", "1.2.3"),
    }
    write(folder / "IM999", tags)
    return write_series(folder)


def without_instance(path: Path) -> Path:
    """Takes the SOPInstanceUID out of a file's data set, not out of its meta group."""
    head, uid, rest = path.read_bytes().partition(element(0x00080018, "UI", "1.2.3.1"))
    assert uid
    path.write_bytes(head + rest)
    return path


def in_two_files(folder: Path) -> Path:
    """The frames of slices 0 to 9 and 10 to 23 in two files, neither with a SOPInstanceUID."""
    for name, slices in {"a.dcm": range(10), "b.dcm": range(10, N)}.items():
        without_instance(write_enhanced(folder / name, [(k, echo(3)) for k in slices]))
    return folder


def other_names(folder: Path) -> Path:
    """Names whose order is not that of the slices."""
    for k in range(N):
        write_slice(folder / f"1.2.840.{(k * 7) % N}", k)
    return folder


def shuffled(path: Path) -> Path:
    return write_enhanced(path / "e.dcm", [((k * 7) % N, echo(3.0)) for k in range(N)])


ONE_VOLUME: dict[str, Callable[[Path], Path]] = {
    "plain": lambda p: write_series(p / "a"),
    "implicit": lambda p: write_series(p / "a", syntax=IMPLICIT),
    "big endian": lambda p: write_series(p / "a", syntax=BIG),
    "deflated": lambda p: write_series(p / "a", syntax=DEFLATED),
    "no preamble": lambda p: write_series(p / "a", preamble=False),
    "no preamble, implicit": lambda p: write_series(p / "a", preamble=False, syntax=IMPLICIT),
    "meta group without a preamble": lambda p: bare(write_series(p / "a")),
    "names in another order": lambda p: other_names(p / "a"),
    "a text and a picture beside it": lambda p: beside(
        write_series(p / "a"), README=b"From the scanner.\r\n", **{"a.jpg": b"\xff\xd8\0", "VERSION.txt": b""}
    ),
    "six texts that come first": lambda p: beside(write_series(p / "a"), **{f"A{k}": b"Notes" for k in range(6)}),
    "a packed copy of a slice": lambda p: beside(
        write_series(p / "a", "{:d}.dcm"), **{"5.dcm.gz": gzip.compress((p / "a/5.dcm").read_bytes())}
    ),
    "slices a little aside": lambda p: aside(p / "a", lambda k: 0.001 * (k % 2)),
    "a report": lambda p: with_report(p / "a"),
    "thickness": lambda p: written_in_turns(p / "a", 0x00180050, "DS", "5", "5.0000", "4.99999", "5e0"),
    "pixel spacing": lambda p: written_in_turns(p / "a", 0x00280030, "DS", r"5\5", r"5.000\5.0", r"4.99999\5.00001"),
    "orientation": lambda p: written_in_turns(
        p / "a", 0x00200037, "DS", r"1\0\0\0\1\0", r"1.0000\-0\0\0\1.0\0", r"0.9999999\0.0001\0\0\1\0"
    ),
    "echo time": lambda p: written_in_turns(p / "a", 0x00180081, "DS", "3", "3.00", "2.9999"),
    "echo time, rounded to other digits": lambda p: written_in_turns(p / "a", 0x00180081, "DS", "3.1249", "3.1251"),
    "an object of a vendor's own": lambda p: with_private(p / "a"),
    "no instance UID": lambda p: written_in_turns(p / "a", 0x00080018, "UI", ""),
    "enhanced, no instance UID": lambda p: without_instance(
        write_enhanced(p / "e.dcm", [(k, echo(3)) for k in range(N)])
    ),
    "enhanced, two files, no instance UID": lambda p: in_two_files(p / "a"),
    "enhanced, echo times rounded to other digits": lambda p: write_enhanced(
        p / "e.dcm", [(k, echo(3.1249 + 0.0002 * (k % 2))) for k in range(N)]
    ),
    "enhanced": lambda p: write_enhanced(p / "e.dcm", [(k, stack("1")) for k in range(N)]),
    "enhanced, implicit": lambda p: write_enhanced(p / "e.dcm", [(k, echo(3)) for k in range(N)], IMPLICIT),
    "enhanced, frames in another order": shuffled,
    "enhanced, in a folder": lambda p: shuffled(p / "a").parent,
}


@pytest.mark.parametrize("make", ONE_VOLUME.values(), ids=ONE_VOLUME)
def test_one_volume(make: Callable[[Path], Path], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    place = make(tmp_path)
    assert [path for path, _ in find_scans(place)] == [place]
    voxels, affine, warnings = read_scan(place)
    np.testing.assert_array_equal(voxels, VOXELS)
    np.testing.assert_allclose(affine, AFFINE, atol=2e-3)
    assert [warning[: len(THICK)] for warning in warnings] == [THICK]


def frames_of(slices: range, signed: bool = False) -> list[np.ndarray]:
    """(rows, columns) of each slice; signed ones 300 lower."""
    return [np.ascontiguousarray((VOXELS[:, :, k].astype(int) - 300 * signed).T) for k in slices]


ENCODERS: dict[str, tuple[str, Callable[[np.ndarray, Path], bytes]]] = {
    "RLE": ("1.2.840.10008.1.2.5", lambda pixels, _: as_rle(pixels)),
    "JPEG Lossless": ("1.2.840.10008.1.2.4.70", lambda pixels, folder: as_jpeg(pixels, "JPEG", folder)),
    "JPEG Lossless, process 14": ("1.2.840.10008.1.2.4.57", lambda pixels, folder: as_jpeg(pixels, "JPEG", folder)),
    "JPEG 2000 Lossless": ("1.2.840.10008.1.2.4.90", lambda pixels, folder: as_jpeg(pixels, "JPEG2000", folder)),
}


@pytest.mark.parametrize("form", ["slices", "enhanced", "signed"])
@pytest.mark.parametrize("name", ENCODERS)
def test_a_compressed_series(name: str, form: str, tmp_path: Path) -> None:
    """Every voxel is the one that was compressed, in its place. JPEG-LS is tried in tests/label, which can write it."""
    syntax, encode = ENCODERS[name]
    signed = form == "signed"
    frames = [encode(each.astype(np.int16 if signed else np.uint16), tmp_path) for each in frames_of(range(N), signed)]
    place = tmp_path / "a"
    if form == "enhanced":
        encapsulated(write_enhanced(place / "e.dcm", [(k, echo(3)) for k in range(N)]), syntax, frames)
    else:
        write_series(place, tags={0x00280103: ("US", int(signed))})
        for k, frame in enumerate(frames):
            encapsulated(place / f"IM{k:03d}", syntax, [frame])
    voxels, affine, warnings = read_dicom(place)
    np.testing.assert_array_equal(voxels, VOXELS.astype(int) - 300 * signed)
    np.testing.assert_allclose(affine, AFFINE)
    assert warnings == []


@pytest.mark.parametrize(
    ("syntax", "fragment", "sentence"),
    [
        (
            "1.2.840.10008.1.2.4.201",
            b"\0" * 100,
            r"by High-Throughput JPEG 2000 \(transfer .*\.201\), which cannot",
        ),
        ("1.2.840.10008.1.2.4.110", b"\0" * 100, r"IM003 is compressed by JPEG XL .* Export the series again without"),
        ("1.2.840.10008.1.2.4.102", b"\0" * 100, "compressed by MPEG-4"),
        ("1.2.3.4", b"\0" * 100, r"compressed by an unknown way \(transfer syntax 1\.2\.3\.4\)"),
        # GDCM divides by the number of segments, and the process would end
        ("1.2.840.10008.1.2.5", b"\0" * 100, "IM003 says that its pixels are RLE, but they are not"),
        ("1.2.840.10008.1.2.5", b"\2\0\0\0", "IM003 says that its pixels are RLE, but they are not"),
        ("1.2.840.10008.1.2.4.90", b"\0" * 100, "IM003 can't be read"),
        ("1.2.840.10008.1.2.4.70", b"\xff\xd8\0\0", "IM003 can't be read"),
    ],
)
def test_pixels_that_cannot_be_decoded(syntax: str, fragment: bytes, sentence: str, tmp_path: Path) -> None:
    """One sentence names the file, the compression and the remedy; no other slice hides it."""
    encapsulated(write_series(tmp_path) / "IM003", syntax, [fragment])
    with pytest.raises(DataError, match=sentence):
        read_scan(tmp_path)


def test_a_deflated_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINMRI_MAX_VOXELS", "100000")
    write_series(tmp_path, syntax=DEFLATED)
    assert read_dicom(tmp_path)[0].shape == SHAPE
    bomb = slice_tags(3) | {0x00204000: ("UT", b" " * 100_000_000)}  # comments
    assert write(tmp_path / "IM003", bomb, DEFLATED).stat().st_size < 200_000
    with pytest.raises(DataError, match=r"IM003 unpacks to more than 67\.91 MB"):
        read_dicom(tmp_path)


def bare(folder: Path) -> Path:
    """Takes the preamble and DICM off every file."""
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[132:])
    return folder


def cut(path: Path, size: int) -> Path:
    path.write_bytes(path.read_bytes()[:size])
    return path.parent


def two(folder: Path, first: Tags, second: Tags, slices: range = range(N)) -> Path:
    """A series with each slice twice, which differ by tags; the second one of some slices only."""
    write_series(folder, "a{:03d}", tags=first)
    for k in slices:
        write_slice(folder / f"b{k:03d}", k, instance=1000 + k, tags=second)
    return folder


def twice(folder: Path, change: int = 0) -> Path:
    """Each file twice, the copies with other pixels where `change` is set."""
    for k in range(N):
        write_slice(folder / f"IM{k:03d}.dcm", k)
        write_slice(folder / f"IM{k:03d} copy.dcm", k, VOXELS[:, :, k] + change)
    return folder


def localizer(folder: Path) -> Path:
    write_series(folder)
    write_slice(folder / "sagittal", 3, instance=99, tags={0x00200037: ("DS", r"0\1\0\0\0\-1")})
    return folder


def without(folder: Path, tag: int) -> Path:
    for k in range(N):
        tags = slice_tags(k)
        del tags[tag]
        write(folder / f"IM{k:03d}", tags)
    return folder


def compressed(folder: Path, ends: bool) -> Path:
    """Encapsulated pixels of which the last fragment, or its end, is missing."""
    write_series(folder)
    path = folder / "IM004"
    head = path.read_bytes().partition(b"\xe0\x7f\x10\x00OW")[0] + b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"
    fragment = b"\xfe\xff\x00\xe0" + (500).to_bytes(4, "little")
    path.write_bytes(head + b"\xfe\xff\x00\xe0\0\0\0\0" + (b"" if ends else fragment + b"\1" * 100))
    return folder


def aside(folder: Path, millimetres: Callable[[int], float]) -> Path:
    """A series of which slice k lies some millimetres to the left."""
    for k in range(N):
        write_slice(folder / f"IM{k:03d}", k, tags={0x00200032: ("DS", rf"{millimetres(k) - 100:g}\-120\{5 * k - 60}")})
    return folder


def higher(folder: Path, millimetres: Callable[[int], float]) -> Path:
    """A series of which slice k lies some millimetres higher."""
    for k in range(N):
        height = 5 * k - 60 + millimetres(k)
        write_slice(folder / f"IM{k:03d}", k, tags={0x00200032: ("DS", rf"-100\-120\{height:g}")})
    return folder


def replaced(path: Path, content: bytes, name: str = "") -> Path:
    """Puts something else in the place of a slice; returns the folder."""
    path.unlink()
    (path.parent / (name or path.name)).write_bytes(content)
    return path.parent


def packed_slice(folder: Path) -> Path:
    path = write_series(folder, "IM{:03d}.dcm") / "IM005.dcm"
    return replaced(path, gzip.compress(path.read_bytes()), "IM005.dcm.gz")


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "pixels cut": (lambda p: cut(write_series(p) / "IM007", 3500), r"IM007 is cut short \(3500 bytes\)\. Copy"),
    "header cut": (lambda p: cut(write_series(p) / "IM023", 420), r"IM023 is cut short \(420 bytes"),
    "cut between two elements": (
        lambda p: without(p, 0x7FE00010),
        r"IM000 is cut short \(\d+ bytes, without pixels\)\. Copy",
    ),
    "cut in the preamble": (
        lambda p: cut(write_series(p) / "IM001", 100),
        r"IM001 is cut short \(100 bytes that are no",
    ),
    "empty, with an ending": (
        lambda p: cut(write_series(p, "s{:d}.IMA") / "s11.IMA", 0),
        r"s11\.IMA is cut short \(0 bytes that are no DICOM",
    ),
    "compressed, a fragment cut": (lambda p: compressed(p, False), r"IM004 is cut short \(\d+ bytes\)"),
    "compressed, no fragment": (lambda p: compressed(p, True), r"IM004 is cut short \(\d+ bytes\)"),
    "no preamble, cut": (lambda p: cut(write_series(p, preamble=False) / "IM002", 900), r"IM002 is cut short \(900"),
    "enhanced, cut": (
        lambda p: cut(write_enhanced(p / "e.dcm", [(k, {}) for k in range(N)]), 60_000) / "e.dcm",
        r"e\.dcm is cut short \(60000 bytes\)\. Copy",
    ),
    "two inversion times": (
        lambda p: two(p, {0x00180082: ("DS", "400")}, {0x00180082: ("DS", "2500.0")}),
        r"is a series of volumes \(40x48x24x2\)\. Save one .* inversion time \(400, 2500\)\. See a000, b000\.",
    ),
    "two time points": (
        lambda p: two(p, {0x00200100: ("IS", "1")}, {0x00200100: ("IS", "2")}),
        r"\(40x48x24x2\)\. Save one .* temporal position \(1, 2\)",
    ),
    "magnitude and real": (
        lambda p: two(p, {}, {0x00080008: ("CS", r"ORIGINAL\PRIMARY\R\ND")}),
        r"\(40x48x24x2\).* image type \(M, R\)",
    ),
    "a second echo that is not whole": (
        lambda p: two(p, {}, {0x00180081: ("DS", "90")}, range(5, 11)),
        r"has 2 slices at the same position \(a005, b005\)\. They differ in echo time \(3, 90\)\. Give",
    ),
    "echoes in turns": (
        lambda p: written_in_turns(p, 0x00180081, "DS", "10", "90"),
        r"mixes slices that differ in echo time \(10: 12 slices, 90: 12 slices\)\. Give the files of each a folder",
    ),
    "two echoes in turns": (
        lambda p: written_in_turns(p, 0x00180081, "DS", "10", "80"),
        r"mixes slices that differ in echo time \(10: 12 slices, 80: 12 slices\)\. Give the files of each a folder",
    ),
    "echo times 2% apart": (
        lambda p: written_in_turns(p, 0x00180081, "DS", "50", "51", "50.1"),
        r"mixes slices that differ in echo time \(50: 16 slices, 51: 8 slices\)",
    ),
    "inversion times in turns": (
        lambda p: written_in_turns(p, 0x00180082, "DS", "400", "2500"),
        r"mixes slices that differ in inversion time \(400: 12 slices, 2500: 12 slices\)\. Give",
    ),
    "flip angles in turns": (
        lambda p: written_in_turns(p, 0x00181314, "DS", "5", "20", "5.01"),
        r"mixes slices that differ in flip angle \(5: 16 slices, 20: 8 slices\)\. Give",
    ),
    "a second stack aside": (
        lambda p: aside(p, lambda k: 30 * (k > 11)),
        r"holds slices that lie aside of the others \(IM011, 14\.3 mm\), as those of two stacks do\. Give the files",
    ),
    "one slice aside": (
        lambda p: aside(p, lambda k: 8 * (k == 7)),
        r"holds slices that lie aside of the others \(IM007, 8 mm\)",
    ),
    "a second stack above": (
        lambda p: higher(p, lambda k: 40 * (k > 11)),
        r"lacks slices, or holds two stacks \(IM011 and IM012 are 45 mm apart, most slices 5 mm\)\. Export",
    ),
    "each second slice of a third is missing": (
        lambda p: higher(p, lambda k: 5 * max(0, k - 15)),
        r"lacks slices, or holds two stacks \(IM015 and IM016 are 10 mm apart, most slices 5 mm\)\. Export",
    ),
    "a web page for a slice": (
        lambda p: replaced(write_series(p) / "IM005", b"<html>404 Not Found</html>\n"),
        r"IM005 is a text in the place of a slice\. Copy it again",
    ),
    "a web page with the images' ending": (
        lambda p: replaced(write_series(p, "{:d}.dcm") / "5.dcm", b"Forbidden", "five.dcm"),
        r"five\.dcm is a text in the place of a slice",
    ),
    "a packed slice": (packed_slice, r"IM005\.dcm\.gz is packed by gzip or bzip2, so its slice is missing\. Unpack it"),
    "only an object of a vendor's own": (
        lambda p: write(p / "a", {0x00080016: ("UI", PRIVATE), 0x00080018: ("UI", "1.9")}).parent,
        r"has no DICOM series that can be read\. Give",
    ),
    "enhanced, two echoes, no instance UID": (
        lambda p: without_instance(
            write_enhanced(p / "e.dcm", [(k, echo(ms)) for k in range(N) for ms in (10.0, 80.0)])
        ),
        r"e\.dcm is a series of volumes \(40x48x24x2\).* echo time \(10, 80\)",
    ),
    "a packing that does not exist": (
        lambda p: write_series(p / "a", syntax="1.2.840.10008.1.2.4.999"),
        r"IM000 is compressed by an unknown way \(transfer syntax 1\.2\.840\.10008\.1\.2\.4\.999\), which cannot",
    ),
    "copies with other pixels": (
        lambda p: twice(p, 1),
        r"IM000 copy\.dcm and IM000\.dcm have the same SOPInstanceUID but different pixels",
    ),
    "other orientation": (
        localizer,
        r"holds slices of different orientations \(IM000 and sagittal\), as a localizer does\. Give the files",
    ),
    "other pixel spacing": (
        lambda p: written_in_turns(p, 0x00280030, "DS", r"5\5", r"4\4"),
        r"different sizes \(IM000 and IM001: 5x5 and 4x4",
    ),
    "no position": (lambda p: without(p, 0x00200032), r"IM000 has no position, orientation or pixel spacing"),
    "no number": (
        lambda p: written_in_turns(p, 0x00280030, "DS", "five"),
        r"IM000 has 'five' in the tag \(0028,0030\), which is no",
    ),
    "one slice": (
        lambda p: write_slice(p / "IM005", 5),
        r"is a slice, not a volume \(40x48x1\)\. Give the folder that holds",
    ),
    "enhanced, two stacks": (
        lambda p: write_enhanced(p / "e.dcm", [(k, stack("ab"[k > 9])) for k in range(N)]),
        r"e\.dcm holds 2 stacks of slices \(a: 10 slices, b: 14 slices\)\. Convert it to NIfTI, with dcm2niix",
    ),
    "enhanced, two echoes": (
        lambda p: write_enhanced(p / "e.dcm", [(k, echo(ms)) for k in range(N) for ms in (10.0, 90.0)]),
        r"e\.dcm is a series of volumes \(40x48x24x2\).* echo time \(10, 90\)\. See e\.dcm, frame 1, e\.dcm, frame 2",
    ),
    "enhanced, time points": (
        lambda p: write_enhanced(p / "e.dcm", [(k, stack("1", time)) for time in (1, 2, 3) for k in range(N)]),
        r"e\.dcm is a series of volumes \(40x48x24x3\).* temporal position \(1, 2, 3\)",
    ),
}


@pytest.mark.parametrize(("make", "sentence"), REFUSED.values(), ids=REFUSED)
def test_refused(make: Callable[[Path], Path], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=sentence) as refused:
        read_scan(make(tmp_path))
    assert "\n" not in str(refused.value)


def test_copies_are_used_once(tmp_path: Path) -> None:
    voxels, affine, warnings = read_scan(twice(tmp_path))
    np.testing.assert_array_equal(voxels, VOXELS)
    np.testing.assert_allclose(affine, AFFINE)
    assert warnings[0] == "24 of its files are copies of others: each slice is used once"


def test_a_copied_enhanced_file_is_used_once(tmp_path: Path) -> None:
    shutil.copy(shuffled(tmp_path), tmp_path / "copy.dcm")
    voxels, _, warnings = read_scan(tmp_path)
    np.testing.assert_array_equal(voxels, VOXELS)
    assert warnings[0] == "1 of its files are copies of others: each slice is used once"


def int16(*values: int) -> bytes:
    return np.array(values, "<i2").tobytes()


def first_elements(syntax: str, preamble: bool) -> Callable[[Path], bytes]:
    return lambda p: write_slice(p / "slice", 0, syntax=syntax, preamble=preamble).read_bytes()


NOISE = np.random.default_rng(0).integers(0, 12, 5000)
BEGINNINGS: dict[str, tuple[Callable[[Path], bytes], bool]] = {
    "explicit": (first_elements(EXPLICIT, True), True),
    "implicit": (first_elements(IMPLICIT, True), True),
    "explicit, no preamble": (first_elements(EXPLICIT, False), True),
    "implicit, no preamble": (first_elements(IMPLICIT, False), True),
    "meta group, no preamble": (lambda p: first_elements(EXPLICIT, True)(p)[132:], True),
    "group length first, implicit": (
        lambda _: element(0x00080000, "UL", 100, IMPLICIT) + element(0x00080005, "CS", "ISO_IR 100", IMPLICIT),
        True,
    ),
    "one element": (lambda _: element(0x00080005, "CS", "ISO_IR 100"), False),
    "the preamble's zeros alone": (lambda _: b"\0" * 200, False),
    "an odd length": (lambda _: int16(8, 5, 3, 0, *NOISE), False),
    "a second tag that is smaller": (lambda _: int16(8, 5, 4, 0, 1, 2, 8, 4, *NOISE), False),
    "a second tag of another group": (lambda _: int16(8, 5, 4, 0, 1, 2, 11, 4, *NOISE), False),
    "a length beyond the start": (lambda _: int16(8, 5, 4, 9, *NOISE), False),
    "group 2": (lambda _: int16(2, 1, 3, 0, *NOISE), False),
    "cut in the first tag": (lambda _: int16(8, 5, 4), False),
    "text": (lambda _: b"no DICOM at all", False),
    "empty": (lambda _: b"", False),
}


@pytest.mark.parametrize(("content", "expected"), BEGINNINGS.values(), ids=BEGINNINGS)
def test_is_dicom(content: Callable[[Path], bytes], expected: bool, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content(tmp_path))
    assert is_dicom(tmp_path / "file") == expected


def test_a_gap_is_said_with_its_files(tmp_path: Path) -> None:
    write_series(tmp_path)
    for k in (9, 10):
        (tmp_path / f"IM{k:03d}").unlink()
    voxels, affine, warnings = read_scan(tmp_path)
    assert voxels.shape == (*SHAPE[:2], 22)
    assert affine[2, 2] == pytest.approx(5 * 23 / 21)
    assert warnings[0].startswith("its slices are unevenly spaced")
    assert "(IM008 and IM011 are 15 mm apart, the mean is 5.476 mm)" in warnings[0]


def test_slices_that_drift_aside_are_sheared(tmp_path: Path) -> None:
    for k in range(N):
        write_slice(tmp_path / f"{k}", k, tags={0x00200032: ("DS", rf"{k - 100}\-120\{5 * k - 60}")})
    _, affine, warnings = read_scan(tmp_path)
    np.testing.assert_allclose(affine[:3, 2], [-1, 0, 5])
    assert any("right angles" in warning for warning in warnings)


def test_a_header_by_hand(tmp_path: Path) -> None:
    header = read_header(write_enhanced(tmp_path / "e", [(k, echo(4.5)) for k in range(3)]))
    assert header is not None
    assert header.text(0x00080060) == "MR"
    assert header.decimals(0x00280008) == (3.0,)
    assert header.integer(0x00280010) == SHAPE[1]
    first = header.items(0x52009230)[0]
    assert header.decimals(0x00200032, header.items(0x00209113, first)[0]) == (-100.0, -120.0, -60.0)
    assert header.real(0x00189082, header.items(0x00189114, first)[0]) == 4.5
    assert header.pixels is not None
    assert header.pixels[1] - header.pixels[0] == 2 * 3 * SHAPE[0] * SHAPE[1]
    (tmp_path / "text").write_text("no DICOM at all")
    assert read_header(tmp_path / "text") is None


@pytest.mark.parametrize(
    ("tags", "warned"),
    [({}, True), ({0x00180081: ("DS", "90")}, False), ({0x0020000E: ("UI", "1.2.4")}, False)],
)
def test_a_series_in_two_folders(tags: Tags, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Half of the slices lie in each folder; another echo time or series is another volume."""
    write_series(tmp_path / "1", slices=range(12))
    write_series(tmp_path / "2", slices=range(12, N), tags=tags)
    assert len(find_scans(tmp_path)) == 2
    sentence = f"{tmp_path}/1 and {tmp_path}/2 hold files of one DICOM series. If these are slices of one volume,"
    assert (sentence in caplog.text) == warned
    assert bool(caplog.text) == warned


def test_a_folder_with_dicom_and_other_scans(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_series(tmp_path / "a" / "b")
    shutil.copytree(tmp_path / "a" / "b", tmp_path / "a" / "c")
    (tmp_path / "a" / "c" / "x.nii.gz").touch()
    assert [str(inside) for _, inside in find_scans(tmp_path / "a")] == ["b", "c/x.nii.gz"]
    assert "a/c holds DICOM files beside other scans" in caplog.text
