"""Pictures: what is drawn is where it should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from custom.networks import AttentionUNet
from custom.reports import (
    animation,
    attention_animation,
    attention_figure,
    channels_figure,
    contour_figure,
    overlay_figure,
    save_animation,
    segmentation_figure,
)
from custom.reports.contours import LINES
from custom.reports.overlay import OPACITY
from custom.reports.segmentation import colour_of

NAMES = {0: "background", 1: "NCR", 2: "ED", 3: "ET"}


@pytest.fixture
def volume() -> tuple[np.ndarray, np.ndarray]:
    scan = np.random.default_rng(0).uniform(0, 100, (12, 10, 8))
    labels = np.zeros(scan.shape, dtype=np.uint8)
    labels[2:4, 7:9, 5] = 3
    return scan, labels


def test_animation_paints_labels_in_place(volume: tuple[np.ndarray, np.ndarray]) -> None:
    scan, labels = volume
    frames = animation(np.zeros_like(scan), labels, axis=2)
    assert len(frames) == 8
    assert frames[5].size == (12, 10)
    pixels = np.asarray(frames[5])
    colour = (255 * OPACITY * np.array(to_rgb(colour_of(3)))).astype(int)
    painted = np.argwhere(pixels.any(axis=-1))
    # x to the right, y upwards: x 2 and 3 are columns 2 and 3, y 7 and 8 rows 10 - 1 - 8 and 10 - 1 - 7
    assert sorted(map(tuple, painted.tolist())) == [(1, 2), (1, 3), (2, 2), (2, 3)]
    assert np.abs(pixels[1, 2] - colour).max() <= 1
    assert not np.asarray(frames[4]).any()
    tall = animation(scan, labels, axis=0, spacing=(1, 1, 2.5))
    assert (len(tall), tall[0].size) == (12, (10, 20))


def test_a_gif_that_opens(volume: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    path = save_animation(animation(*volume, axis=1), tmp_path / "coronal.gif")
    with Image.open(path) as gif:
        assert gif.n_frames == 10
        assert gif.size == (300, 214)  # 12x8 pixels, and a line of words
        words = np.asarray(gif.convert("L"))[:13]
    assert words.max() > 200
    assert [one.name for one in tmp_path.iterdir()] == ["coronal.gif"]


def test_overlay_shows_labelled_slices(volume: tuple[np.ndarray, np.ndarray]) -> None:
    figure = overlay_figure(*volume, NAMES, columns=2)
    assert [ax.get_title().split()[0] for ax in figure.axes] == ["sagittal"] * 2 + ["coronal"] * 2 + ["axial"] * 2
    assert all(ax.get_title() == "axial 5" for ax in figure.axes[4:])
    assert "not a medical device" in figure.legends[0].get_title().get_text()
    empty = overlay_figure(volume[0], np.zeros_like(volume[1]), NAMES)
    assert len(empty.axes) == 15
    with pytest.raises(ValueError, match=r"got \(12, 10, 8\) and \(12, 10\)"):
        overlay_figure(volume[0], volume[1][..., 0], NAMES)


def test_a_segmentation_beside_the_reference(volume: tuple[np.ndarray, np.ndarray]) -> None:
    """Three rows through the prediction's middle: x 2.5 (rounded to 2), y 7.5 (to 8) and z 5."""
    scan, labels = volume
    figure = segmentation_figure(scan, np.zeros_like(labels), labels, NAMES, spacing=(1, 1, 2.5))
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[::3] == ["scan, sagittal", "reference, sagittal", "prediction, sagittal"]
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), scan[2].T)
    np.testing.assert_array_equal(figure.axes[7].images[0].get_array(), labels[:, 8].T)
    np.testing.assert_array_equal(figure.axes[8].images[0].get_array(), labels[..., 5].T)
    assert figure.axes[6].get_aspect() == 2.5
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["NCR", "ED", "ET"]
    assert len(segmentation_figure(scan, None, labels, NAMES).axes) == 6
    with pytest.raises(ValueError, match=r"one shape, got .*'reference': \(12, 10, 7\)"):
        segmentation_figure(scan, labels[..., :7], labels, NAMES)


def test_outlines_lie_on_the_scan() -> None:
    """A cube from x 30 to 69 with its centre cut out: slices at shares of its extent, off the middle at x 49.5."""
    scan, labels = np.zeros((100, 100, 100)), np.zeros((100, 100, 100), np.uint8)
    labels[30:70, 30:70, 30:70] = 1
    labels[40:60, 40:60, 40:60] = 5
    figure = contour_figure(scan, labels, {0: "background", 1: "GM", 5: "WM"}, spacing=(1, 1, 2), title="$ä^{")
    titles = [ax.get_title() for ax in figure.axes]
    # 30 + 39 times 0.15, 0.28, 0.42, 0.62 and 0.78
    assert titles[:5] == ["sagittal 36", "sagittal 41", "sagittal 46", "sagittal 54", "sagittal 60"]
    assert titles[5:10] == ["coronal 38", "coronal 44", "coronal 50", "coronal 55", "coronal 61"]
    assert [title.split()[0] for title in titles[10:]] == ["axial"] * 5
    assert figure.axes[0].get_aspect() == 2
    outer, inner = figure.axes[12].collections  # axial, the middle slice, cropped 8 voxels outside the cube
    (path,) = outer.get_paths()
    assert (path.vertices.min(), path.vertices.max()) == (7.5, 47.5)
    (path,) = inner.get_paths()
    assert (path.vertices.min(), path.vertices.max()) == (17.5, 37.5)
    assert len(figure.axes[10].collections) == 1  # the first slice is outside the inner cube
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["GM", "WM"]
    assert "not a medical device" in figure.legends[0].get_title().get_text()
    assert len({(to_rgb(line.get_color()), line.get_linestyle()) for line in figure.legends[0].get_lines()}) == 2
    assert len(contour_figure(scan, np.zeros_like(labels), {0: "background", 1: "GM"}).axes) == 15
    with pytest.raises(ValueError, match=r"got \(100, 100, 100\) and \(100, 100\)"):
        contour_figure(scan, labels[..., 0], {0: "background"})


def test_lines_can_be_told_apart_in_grey() -> None:
    """The three tissues by colour and by style, all 18 by both together; luminance as in ITU-R BT.709."""
    assert len(set(LINES)) == len(LINES) == 18
    grey = [float(np.dot(to_rgb(colour), (0.2126, 0.7152, 0.0722))) for colour, _ in LINES[:3]]
    assert min(abs(one - other) for one, other in ((grey[0], grey[1]), (grey[1], grey[2]), (grey[0], grey[2]))) > 0.15
    assert len({style for _, style in LINES[:3]}) == 3


def test_channels_and_masks_of_a_slice() -> None:
    image, masks = np.random.default_rng(0).normal(size=(4, 9, 7)), np.zeros((3, 9, 7))
    names = (["FLAIR", "T1", "T1ce", "T2"], ["NCR", "ED", "ET"])
    figure = channels_figure(image, {"reference": masks, "prediction": masks}, *names, title="volume_1")
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[:5] == ["FLAIR", "T1", "T1ce", "T2", "NCR, reference"]
    assert titles[8:11] == ["NCR, prediction", "ED, prediction", "ET, prediction"]
    np.testing.assert_allclose(figure.axes[2].images[0].get_array(), image[2].T)


def test_attention_over_a_slice_and_through_a_volume() -> None:
    torch.manual_seed(0)
    network, volume = AttentionUNet(4, 3, n_filters=4), torch.randn(4, 32, 48, 3)
    figure = attention_figure(network, volume[..., 1])
    assert [ax.get_title() for ax in figure.axes[:5]] == [
        "input", "gate at 4x6", "gate at 8x12", "gate at 16x24", "gate at 32x48"
    ]  # fmt: skip
    last = network.attention_maps(volume[None, ..., 1])[-1][0, 0].T
    np.testing.assert_allclose(figure.axes[4].images[1].get_array(), last.detach(), rtol=1e-5)
    frames = attention_animation(network, volume)
    assert [frame.size for frame in frames] == [(5 * 32, 48)] * 3
