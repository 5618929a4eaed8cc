"""Kaggle's brain tumor images: layout, splits, near-duplicates, bad files, loading and cropping."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import Compose, NormalizeIntensityd, RandFlipd, RandRotated, Resized
from PIL import Image, ImageEnhance
from scipy.sparse import csr_matrix, eye

from custom.datasets import tumor_images
from custom.datasets.download import download
from custom.datasets.image_groups import joined
from custom.datasets.near_duplicates import THRESHOLD, hashes, near_duplicates
from custom.errors import ConfigError, DataError, MissingDataError
from custom.samples import tumor_images as sample
from custom.transforms import CropToHeadd, LoadRGBd, head_mask
from tests.conftest import Brainmri

SPLITS = ("training", "validation", "test")
THREE = ["glioma", "meningioma", "pituitary"]  # J. Cheng's
FIRST, SECOND = "Training/glioma/Tr-gl_0004.jpg", "Training/glioma/Tr-gl_0005.jpg"


@pytest.fixture
def copy(tumor_images_dir: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tumor_images_dir, tmp_path / "images"))


def items(folder: Path, split: str, **options: object) -> list[dict]:
    return tumor_images.datalist(folder, split, **({"cache_dir": None} | options))


def test_sample_is_as_it_says(tumor_images_dir: Path) -> None:
    """Five patients of each class with four slices, the first in Testing; its last slice is in Training too."""
    for part, number in (("Training", 17), ("Testing", 4)):
        for name in tumor_images.LABELS.values():
            assert len(list((tumor_images_dir / part / name).glob("*.jpg"))) == number
    modes, sizes = set(), set()
    for path in tumor_images_dir.rglob("*.jpg"):
        with Image.open(path) as picture:
            modes.add(picture.mode)
            sizes.add(picture.size)
    assert modes == {"L", "RGB"}
    assert sizes == set(sample.SIZES)
    assert sample.write(tumor_images_dir, images=80) == tumor_images_dir  # the very sample: nothing is done
    problems = tumor_images.verify(tumor_images_dir)
    assert len(problems) == 1
    assert problems[0].startswith("4 of the 16 images of Testing have near-duplicates in Training (")
    assert (
        "Training/pituitary/Tr-pi_0000.jpg and Testing/pituitary/Te-pi_0003.jpg" not in problems[0]
    )  # three are named
    assert "Training/glioma/Tr-gl_0000.jpg and Testing/glioma/Te-gl_0003.jpg; " in problems[0]


@pytest.mark.parametrize("images", [79, 80.0, True])
def test_sample_says_what_it_takes(images: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"images must be a whole number of 80 or more, got {images}"):
        sample.write(tmp_path / "images", images=images)


def test_labels_are_kaggles_folders() -> None:
    assert list(tumor_images.LABELS.values()) == sorted(tumor_images.LABELS.values())


@pytest.mark.parametrize("partition", tumor_images.PARTITIONS)
@pytest.mark.parametrize("fold", [0, 4])
def test_splits_share_out_all_images(partition: str, fold: int, tumor_images_dir: Path) -> None:
    splits = [items(tumor_images_dir, split, fold=fold, partition=partition) for split in SPLITS]
    subjects = [item["subject"] for split in splits for item in split]
    assert sorted(subjects) == sorted(
        path.relative_to(tumor_images_dir).as_posix() for path in tumor_images_dir.rglob("*.jpg")
    )
    for split in splits:
        counts = Counter(item["label"] for item in split)
        assert set(counts) == {0, 1, 2, 3}
        assert max(counts.values()) <= 2 * min(counts.values())
        for item in split:
            assert item["label"] == ["glioma", "meningioma", "notumor", "pituitary"].index(
                item["subject"].split("/")[1]
            )
            assert item["image"] == str(tumor_images_dir / item["subject"])
    groups = [{item["group"] for item in split} for split in splits]
    shared = (groups[0] & groups[1]) | (groups[0] & groups[2]) | (groups[1] & groups[2])
    assert bool(shared) == (partition == "original")


def test_original_split(tumor_images_dir: Path) -> None:
    """Testing tests; every fifth image of Training, by name, validates."""
    assert {item["subject"].split("/")[0] for item in items(tumor_images_dir, "test", partition="original")} == {
        "Testing"
    }
    folds = [
        {one["subject"] for one in items(tumor_images_dir, "validation", fold=fold, partition="original")}
        for fold in range(5)
    ]
    assert sum(map(len, folds)) == len(set().union(*folds)) == 68
    assert [len(fold) for fold in folds] == [14, 14, 14, 13, 13]


def test_test_split_is_the_same_in_all_folds(tumor_images_dir: Path) -> None:
    tests = [items(tumor_images_dir, "test", fold=fold) for fold in range(5)]
    assert all(one == tests[0] for one in tests)
    folds = [{one["subject"] for one in items(tumor_images_dir, "validation", fold=fold)} for fold in range(5)]
    assert sum(map(len, folds)) == len(set().union(*folds)) == 84 - len(tests[0])


def test_some_classes_of_a_set(tumor_images_dir: Path) -> None:
    """Codes are places in `classes`; what isn't asked for is left out."""
    found = items(tumor_images_dir, "training", classes=["notumor", "glioma"])
    assert {(item["label"], item["subject"].split("/")[1]) for item in found} == {(0, "notumor"), (1, "glioma")}


def test_a_set_without_a_class(copy: Path) -> None:
    for part in tumor_images.PARTS:
        shutil.rmtree(copy / part / "notumor")
    with pytest.raises(DataError, match=r"Training has no class folder notumor\. .* set class_names to \['glioma', "):
        items(copy, "training")
    assert {item["label"] for item in items(copy, "training", classes=THREE)} == {0, 1, 2}
    assert len(tumor_images.verify(copy)) == 1  # the near-duplicates


def test_a_class_of_ones_own(copy: Path) -> None:
    for part in tumor_images.PARTS:
        (copy / part / "notumor").rename(copy / part / "metastasis")
    found = items(copy, "training", classes=[*THREE, "metastasis"])
    assert {item["label"] for item in found if "metastasis" in item["subject"]} == {3}


def test_unlabelled(tumor_images_dir: Path) -> None:
    folder = tumor_images_dir / "Testing" / "glioma"
    found = items(folder, "unlabelled")
    assert [item["subject"] for item in found] == [f"Te-gl_000{number}.jpg" for number in range(4)]
    assert items(folder / "Te-gl_0002.jpg", "unlabelled") == [
        {"subject": "Te-gl_0002.jpg", "image": str(folder / "Te-gl_0002.jpg")}
    ]
    assert items(folder.parents[1], "unlabelled")[-1]["subject"] == "Training/pituitary/Tr-pi_0019.jpg"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"split": "tset"}, r"split must be .*, got 'tset'"),
        ({"fold": 5}, r"fold must be 0 to 4, got 5"),
        ({"partition": "random"}, r"partition must be one of \['grouped', 'original', 'folds'\], got 'random'"),
        ({"classes": ["glioma"]}, r"two or more names of class folders, got \['glioma'\]"),
        ({"classes": "glioma,notumor"}, r"two or more names of class folders, got 'glioma,notumor'"),
        ({"classes": ["glioma", "glioma", "notumor"]}, r"two or more names"),
    ],
)
def test_settings_that_make_no_sense(options: dict, sentence: str, tumor_images_dir: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        items(tumor_images_dir, **({"split": "training"} | options))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def cmyk(path: Path) -> None:
    Image.open(path).convert("CMYK").save(path)


def sixteen_bits(path: Path) -> None:
    """A grey PNG that says it is a JPEG, as happens."""
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)).save(path, format="png")


BAD_IMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "broken": (cut_short, r"Tr-gl_0004.jpg can't be read to its end \(.*\)\. Copy the file again"),
    "empty": (lambda path: path.write_bytes(b""), r"Tr-gl_0004.jpg can't be read to its end"),
    "no image": (lambda path: path.write_text("<html>"), r"Tr-gl_0004.jpg can't be read to its end"),
    "one pixel": (
        lambda path: Image.new("RGB", (1, 1)).save(path),
        r"Tr-gl_0004.jpg is 1x1 pixels, less than 16 along an axis\. Export it again",
    ),
    "a line": (lambda path: Image.new("RGB", (300, 15)).save(path), r"Tr-gl_0004.jpg is 300x15 pixels"),
    "16 bits": (sixteen_bits, r"Tr-gl_0004.jpg has 16 bits a channel\. Window it to 8 bits"),
    "CMYK": (cmyk, r"Tr-gl_0004.jpg is a CMYK image, neither grey nor RGB\. Save it again as RGB"),
    "blank": (lambda path: Image.new("L", (64, 64), 7).save(path), r"Tr-gl_0004.jpg has the same value in every pixel"),
}


@pytest.mark.parametrize(("spoil", "sentence"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_bad_image_is_named(spoil: Callable[[Path], object], sentence: str, copy: Path) -> None:
    """By the list, by verify, and by the loader."""
    spoil(copy / FIRST)
    with pytest.raises(DataError, match=sentence):
        items(copy, "training")
    (copy / SECOND).write_bytes(b"")
    with pytest.raises(DataError, match=r"1 more have problems: `brainmri verify` lists them"):
        items(copy, "training")
    problems = tumor_images.verify(copy)
    assert len(problems) == 3
    with pytest.raises(DataError, match=sentence):
        LoadRGBd("image")({"image": copy / FIRST})


def move(source: str, target: str) -> Callable[[Path], object]:
    return lambda folder: (folder / source).rename(folder / target)


def write_groups(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "groups.csv").write_text(text)


def empty_folder(folder: Path) -> None:
    for path in (folder / "Testing" / "notumor").iterdir():
        path.unlink()


BAD_SETS: dict[str, tuple[Callable[[Path], object], str]] = {
    "unknown class": (
        lambda folder: (folder / "Training" / "metastasis").mkdir(),
        r"Training/metastasis is no known class folder\. Rename it, or add it to class_names",
    ),
    "renamed class": (
        move("Testing/notumor", "Testing/no_tumor"),
        r"Testing/no_tumor is no known class folder",
    ),
    "empty class": (empty_folder, r"Testing/notumor is an empty class folder\. Copy its images again"),
    "no class in one part": (
        lambda folder: shutil.rmtree(folder / "Testing" / "glioma"),
        r"Testing has no class folder glioma",
    ),
    "loose image": (move(FIRST, "Training/Tr-gl_0004.jpg"), r"Tr-gl_0004.jpg lies in no class folder\. Move it"),
    "no parts": (
        lambda folder: [(folder / part).rename(folder / part.lower()) for part in tumor_images.PARTS],
        r"holds neither Training nor Testing\. .*kaggle datasets download masoudnickparvar/brain-tumor-mri-dataset",
    ),
    "groups without a column": (write_groups("image,patient\n"), r"groups.csv has no column group\. It needs"),
    "groups of a stranger": (write_groups("image,group\nx.jpg,1\n"), r"groups.csv lists x.jpg, which does not exist"),
    "groups twice": (write_groups(f"image,group\n{FIRST},1\n{FIRST},2\n"), r"groups.csv lists .*0004.jpg twice"),
    "groups in no table": (write_groups('image,group\n"'), r"groups.csv can't be read as a table"),
}


@pytest.mark.parametrize(("spoil", "sentence"), BAD_SETS.values(), ids=BAD_SETS)
def test_bad_set_is_explained(spoil: Callable[[Path], object], sentence: str, copy: Path) -> None:
    spoil(copy)
    with pytest.raises(DataError, match=sentence):
        items(copy, "training")
    assert any(re.search(sentence, one) for one in tumor_images.verify(copy))


def test_verify_tells_of_strange_files_and_of_images_in_two_classes(copy: Path) -> None:
    shutil.copy(copy / FIRST, copy / "Training" / "notumor" / "Tr-no_0099.jpg")
    (copy / "Training" / "glioma" / "scan.dcm").touch()
    (copy / "Training" / "glioma" / "._Tr-gl_0004.jpg").touch()  # macOS's, not read
    strange, twice, _ = tumor_images.verify(copy)
    assert strange.endswith("scan.dcm is no .jpg or .jpeg or .png file and isn't read. Convert it, or move it away.")
    assert twice == (
        f"{FIRST} and Training/notumor/Tr-no_0099.jpg are one image, or nearly, in two classes. Keep the right one."
    )


def test_folders_that_hold_nothing(tmp_path: Path) -> None:
    assert tumor_images.verify(tmp_path / "none")[0].startswith("There is no folder")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(MissingDataError, match=r"holds no image\. Give a folder of .jpg, .jpeg, .png files"):
        items(tmp_path, "unlabelled")
    with pytest.raises(MissingDataError, match=r"There is no image or folder .*gone\.jpg\. Correct the path"):
        items(tmp_path / "gone.jpg", "unlabelled")


def test_split_original_needs_testing(copy: Path) -> None:
    shutil.rmtree(copy / "Testing")
    assert items(copy, "test")
    with pytest.raises(
        MissingDataError, match=r"has no folder Testing, which partition 'original' needs. Use partition 'grouped'"
    ):
        items(copy, "test", partition="original")


def test_too_few_groups(copy: Path) -> None:
    paths = sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*.jpg"))
    table = pandas.DataFrame({"image": paths, "group": [number % 9 for number in range(len(paths))]})
    table.to_csv(copy / "groups.csv", index=False)
    with pytest.raises(
        MissingDataError, match=r"has \d groups of images that belong together\. At least ten are needed"
    ):
        items(copy, "training")


def test_groups_of_a_table(copy: Path) -> None:
    """Patients' slices, four numbers each, stay together; a patient in both parts too, by its near-duplicate."""
    paths = sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*.jpg"))
    patients = [f"{path.split('/')[1]} {int(path[-8:-4]) // 4} {path.split('/')[0]}" for path in paths]
    pandas.DataFrame({"image": paths, "group": patients}).iloc[:-1].to_csv(copy / "groups.csv", index=False)
    groups = {item["subject"]: item["group"] for split in SPLITS for item in items(copy, split)}
    assert groups["Training/glioma/Tr-gl_0000.jpg"] == groups["Testing/glioma/Te-gl_0001.jpg"]
    assert groups["Training/glioma/Tr-gl_0007.jpg"] == groups["Training/glioma/Tr-gl_0005.jpg"] == FIRST
    assert len(set(groups.values())) <= 21  # twenty patients, and the last image if it's like no other


@pytest.mark.parametrize(
    ("near", "given", "expected"),
    [
        ([], [None] * 4, "abcd"),
        ([(0, 2)], [None] * 4, "abad"),
        ([(0, 1), (1, 2), (2, 3)], [None] * 4, "aaaa"),
        ([], ["x", "y", "x", None], "abad"),
        ([(1, 2)], ["x", None, "x", "y"], "aaad"),
        ([(0, 1), (2, 3)], [None, "x", "x", None], "aaaa"),
    ],
)
def test_what_belongs_together(near: list, given: list, expected: str) -> None:
    pairs = csr_matrix((np.ones(len(near)), tuple(zip(*near, strict=True)) or ([], [])), shape=(4, 4))
    found = joined(list("abcd"), pairs + pairs.T + eye(4, format="csr"), pandas.Series(given, dtype=object))
    assert "".join(found.values()) == expected


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=20), st.integers(0, 140))
@settings(max_examples=50, deadline=None)
def test_near_duplicates_are_those_within_the_threshold(codes: list[bytes], threshold: int) -> None:
    bits = np.array([[int(bit) for byte in code for bit in f"{byte:08b}"] for code in codes])
    expected = (bits[:, None] != bits[None]).sum(axis=-1) <= threshold
    found = near_duplicates([code.hex() for code in codes], threshold).toarray() > 0
    np.testing.assert_array_equal(found, expected)


def test_hashes_find_copies_and_nothing_else(tumor_images_dir: Path, tmp_path: Path) -> None:
    """In another size, quality, brightness, contrast, or as PNG."""
    source = Image.open(tumor_images_dir / FIRST)
    copies = {
        "original.jpg": source,
        "small.jpg": source.resize((100, 120)),
        "big.png": source.resize((512, 512)),
        "bright.jpg": ImageEnhance.Brightness(source).enhance(1.2),
        "contrast.jpg": ImageEnhance.Contrast(source).enhance(1.3),
        "another.jpg": Image.open(tumor_images_dir / "Training/notumor/Tr-no_0009.jpg"),
    }
    for name, image in copies.items():
        image.save(tmp_path / name, **({"quality": 40} if name.endswith("jpg") else {}))
    found, problems = hashes(tmp_path, list(copies), None)
    assert problems == []
    assert near_duplicates(list(found.values())).toarray().tolist() == [[1] * 5 + [0]] * 5 + [[0] * 5 + [1]]


def test_hashes_are_computed_once(copy: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    before = items(copy, "training", cache_dir=cache)
    (file,) = cache.iterdir()
    content = json.loads(file.read_text())
    assert len(content) == 84
    assert items(copy, "training", cache_dir=cache) == before
    content[SECOND] = content[SECOND][:-1] + content[FIRST][-1:]  # as if they were one image
    file.write_text(json.dumps(content))
    found = {item["subject"]: item["group"] for one in SPLITS for item in items(copy, one, cache_dir=cache)}
    assert found[SECOND] == found[FIRST]
    (copy / SECOND).touch()  # changed: read again
    items(copy, "training", cache_dir=cache)
    assert json.loads(file.read_text())[SECOND][-1] != content[FIRST][-1]
    file.write_text(file.read_text()[:100])  # cut short: all are read again
    assert items(copy, "training", cache_dir=cache) == before
    assert not [path for path in copy.iterdir() if path.name not in ("Training", "Testing", "sample.json")]


def test_chengs_slices(cheng_dir: Path) -> None:
    """Real slices: no two patients' are near-duplicates, and blocks aren't divided."""
    assert tumor_images.verify(cheng_dir) == []
    images = sorted(path.relative_to(cheng_dir).as_posix() for path in cheng_dir.rglob("*.png"))
    found, _ = hashes(cheng_dir, images, None)
    near = near_duplicates(list(found.values())).tocoo()
    pairs = [(images[a], images[b]) for a, b in zip(near.row, near.col, strict=True) if a < b]
    assert len(pairs) == 5
    assert THRESHOLD == 32
    assert all(int(b[-8:-4]) - int(a[-8:-4]) == 3 and a.split("/")[1] == b.split("/")[1] for a, b in pairs)
    block = pandas.read_csv(cheng_dir / "groups.csv").set_index("image")["group"]
    splits = [items(cheng_dir, split, classes=THREE) for split in SPLITS]
    assert [len(split) for split in splits] == [409, 106, 142]
    blocks = [{block[item["subject"]] for item in split} for split in splits]
    assert sum(map(len, blocks)) == len(set().union(*blocks)) == 25


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "1"])
def test_loading(mode: str, tmp_path: Path) -> None:
    """(3, H, W) of 0 to 1, the upper left pixel first; grey becomes three equal channels."""
    pixels = np.zeros((20, 30, 3), dtype=np.uint8)
    pixels[0, 0] = 255
    pixels[5, 7] = (255, 0, 51) if mode in ("RGB", "RGBA", "P") else 255
    Image.fromarray(pixels).convert(mode).save(tmp_path / "image.png")
    loaded = LoadRGBd("image")({"image": tmp_path / "image.png"})["image"]
    assert loaded.shape == (3, 20, 30)
    assert loaded.dtype == torch.float32
    assert loaded.meta["filename_or_obj"] == str(tmp_path / "image.png")
    expected = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    torch.testing.assert_close(loaded.as_tensor(), expected)


def test_loading_turns_pictures_upright(tmp_path: Path) -> None:
    """EXIF's orientation 6: to be turned by 90 degrees clockwise."""
    image = Image.fromarray(np.arange(20 * 30, dtype=np.uint16).reshape(20, 30).clip(0, 255).astype(np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "image.png", exif=exif)
    loaded = LoadRGBd("image")({"image": tmp_path / "image.png"})["image"]
    np.testing.assert_allclose(loaded[0].numpy() * 255, np.rot90(np.asarray(image), -1), atol=1e-3)


def test_sixteen_bit_rgb_is_refused(tmp_path: Path) -> None:
    """Pillow reads it as 8 bits without a word. One pixel's colours are made by hand, PNG chunk by chunk."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(range(192)) for _ in range(32))
    header = struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)
    path = tmp_path / "image.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    with pytest.raises(DataError, match=r"image.png has 16 bits a channel"):
        LoadRGBd("image")({"image": path})


def test_crop_to_head() -> None:
    """The larger of two bright objects, on a grey background below a fifth of the brightest."""
    image = torch.full((3, 100, 120), 0.1)
    image[:, 20:70, 30:100] = 0.8
    image[:, 80:90, 5:15] = 1.0
    found = CropToHeadd(["image", "label"])({"image": image, "label": image[:1]})
    assert found["image"].shape[1:] == pytest.approx((50, 70), abs=3)
    assert found["label"].shape[1:] == found["image"].shape[1:]
    wide = CropToHeadd("image", margin=5)({"image": image})["image"]
    assert [n - m for n, m in zip(wide.shape[1:], found["image"].shape[1:], strict=True)] == [10, 10]


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_crop_of_a_blank_image_keeps_it(value: float) -> None:
    assert CropToHeadd("image")({"image": torch.full((3, 20, 30), value)})["image"].shape == (3, 20, 30)


@pytest.mark.parametrize(
    ("shape", "threshold", "sentence"), [((20, 30), 0.1, r"got the shape \(20, 30\)"), ((1, 9, 9), 1.0, r"got 1.0")]
)
def test_head_mask_says_what_it_takes(shape: tuple, threshold: float, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        head_mask(torch.zeros(shape), threshold)


def test_crop_of_real_heads(cheng_dir: Path) -> None:
    """Every crop holds the head: most of the brightness, and at least a tenth of the image."""
    heads = items(cheng_dir, "test", classes=THREE)
    assert len(heads) > 50
    for item in heads:
        loaded = LoadRGBd("image")(item)
        before, after = loaded["image"], CropToHeadd("image")(loaded)["image"]
        assert after.sum() > 0.9 * before.sum(), item["subject"]
        assert after[0].numel() > 0.1 * before[0].numel(), item["subject"]


def test_preprocessing_goes_on_with_monais(tumor_images_dir: Path) -> None:
    steps = [
        LoadRGBd("image"),
        CropToHeadd("image"),
        Resized("image", (128, 128)),
        RandFlipd("image", prob=1.0, spatial_axis=1),
        RandRotated("image", range_x=0.17, prob=1.0),
        NormalizeIntensityd("image", channel_wise=True),
    ]
    result = Compose(steps)(items(tumor_images_dir, "test")[0])
    assert result["image"].shape == (3, 128, 128)
    assert result["image"].meta["filename_or_obj"] == items(tumor_images_dir, "test")[0]["image"]


def test_command_line(tumor_images_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    said = brainmri("sample", "tumor_images", tumor_images_dir, "--images", 80, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert "A small simulated set in the layout of Kaggle's" in said.stdout
    said = brainmri("verify", "tumor_images", tumor_images_dir, cwd=tmp_path)
    assert said.returncode == 1
    assert "4 of the 16 images of Testing have near-duplicates in Training" in said.stdout
    assert "has 1 problem, listed above" in said.stderr
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="kaggle datasets download masoudnickparvar/brain-tumor"):
        download("tumor_images", tmp_path)
