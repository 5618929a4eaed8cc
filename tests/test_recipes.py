"""Recipes that replace one step: intensities and optimizers, the same in the bundles that have them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

import custom
from custom.errors import ConfigError
from custom.running.bundles import config_files, find_bundles, mixins
from tests.conftest import Brainmri

BUNDLES = [name for name, folder in find_bundles().items() if (folder / "configs/recipes/intensity_max.json").is_file()]
IMAGE = [0.0, 0.0, 2.0, 6.0]  # mean 2, standard deviation root 6; of the brain 4 and 2
INTENSITIES = {
    None: [0.0, 0.0, -1.0, 1.0],  # the default: mean and standard deviation of the brain
    "full_volume_mean": [-2 / 6**0.5, -2 / 6**0.5, 0.0, 4 / 6**0.5],
    "max_min": [0.0, 0.0, 1 / 3, 1.0],
    "max": [0.0, 0.0, 1 / 3, 1.0],
    "brats": [0.0, 0.0, 10.0, 110.0],
}
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-8}),
    "adam": (torch.optim.Adam, {"lr": 0.001, "betas": (0.9, 0.999), "weight_decay": 1e-8}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.001, "alpha": 0.99, "weight_decay": 1e-8}),
}
bundle = pytest.mark.parametrize("bundle", BUNDLES)


def test_both_3d_bundles_have_them() -> None:
    assert BUNDLES == ["brats_mri_tumor_segmentation", "iseg_mri_tissue_segmentation"]


@bundle
@pytest.mark.parametrize("file", ["train.json", "inference.json"])
@pytest.mark.parametrize(("name", "expected"), INTENSITIES.items(), ids=map(str, INTENSITIES))
def test_intensities(bundle: str, file: str, name: str | None, expected: list[float]) -> None:
    """Each channel by itself: the second is three times the first."""
    files = config_files(bundle, file, *mixins(bundle, None, name and f"intensity_{name}"))
    parser = ConfigParser(ConfigParser.load_config_files(files))
    image = torch.tensor([IMAGE, IMAGE]).reshape(2, 2, 2, 1) * torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1)
    found = parser.get_parsed_content("normalize")({"image": image})["image"]
    torch.testing.assert_close(torch.as_tensor(found).flatten(1), torch.tensor([expected, expected]))


def test_below_0_the_greatest_is_the_measure_and_the_rest_follows() -> None:
    """MRI has values from 0 up, but a resampled one may dip below; an empty channel stays empty."""
    image = torch.tensor([[-1.0, 0.0, 1.0, 4.0], [0.0, 0.0, 0.0, 0.0]]).reshape(2, 4, 1, 1)
    found = [
        transform({"image": image})["image"].flatten(1).tolist()
        for transform in (
            custom.transforms.DivideByMaximumd("image"),
            custom.transforms.ScaleForegroundd("image"),
        )
    ]
    assert found == [[[-0.25, 0.0, 0.25, 1.0], [0.0] * 4], [[10.0, 0.0, 50.0, 110.0], [0.0] * 4]]


@bundle
@pytest.mark.parametrize(
    ("name", "kind", "settings"), [(name, *value) for name, value in OPTIMIZERS.items()], ids=OPTIMIZERS
)
def test_optimizers(bundle: str, name: str, kind: type, settings: dict) -> None:
    files = config_files(bundle, "train.json", *mixins(bundle, None, f"optimizer_{name}"))
    optimizer = ConfigParser(ConfigParser.load_config_files(files)).get_parsed_content("optimizer")
    assert type(optimizer) is kind
    assert {key: optimizer.defaults[key] for key in settings} == settings


def test_several_recipes(iseg_dir: Path, brainmri: Brainmri, tmp_path: Path) -> None:
    """All recipes take effect; if two set the same option, the later recipe wins."""
    recipes = ("--recipe", "medicalzoo,optimizer_rmsprop,intensity_brats")
    words = ("iseg", *recipes, "--dataset_dir", iseg_dir, "--output_dir", "run", "--roi_size", "[32,32,32]")
    trained = brainmri(
        "train", *words, "--max_epochs", 1, "--val_interval", 1, "--subvolumes_per_epoch", 3, cwd=tmp_path
    )
    assert trained.returncode == 0, trained.stderr
    saved = torch.load(tmp_path / "run/last.pt", weights_only=True)
    assert "square_avg" in saved["optimizer"]["state"][0]
    inferred = brainmri("infer", *words, cwd=tmp_path)
    assert inferred.returncode == 0, inferred.stderr
    assert "Not used here, since it changes the training only: medicalzoo." in inferred.stdout
    packed = brainmri("pack", *words, cwd=tmp_path)
    assert packed.returncode == 0, packed.stderr
    with zipfile.ZipFile(tmp_path / "run/iseg_mri_tissue_segmentation.zip") as archive:
        train, inference = (
            json.loads(archive.read(f"iseg_mri_tissue_segmentation/configs/{name}.json"))
            for name in ("train", "inference")
        )
    assert train["normalize"] == inference["normalize"]
    assert inference["normalize"]["_target_"] == "custom.transforms.ScaleForegroundd"
    assert train["optimizer"]["_target_"] == "torch.optim.RMSprop"
    assert "sampler" in train["train"]["dataloader"]
    assert list((tmp_path / "run/segmentations").glob("*.nii.gz"))
    with pytest.raises(ConfigError, match=r"recipes has no file intensity_brast\.json\. Use one of: intensity_brats, "):
        config_files("iseg", "train.json", *mixins("iseg", None, ("optimizer_sgd", "intensity_brast")))


@pytest.mark.parametrize(
    ("given", "names"),
    [("a,b", ["a", "b"]), (" a, b,", ["a", "b"]), (("a", "b"), ["a", "b"]), (True, ["True"]), (None, [])],
)
def test_how_recipes_are_named(given: object, names: list[str]) -> None:
    assert mixins("iseg", None, given) == [f"recipes/{name}.json" for name in names]


IMPORTING = [
    path
    for folder in find_bundles().values()
    for path in (folder / "configs/recipes").glob("*.json")
    if "imports" in json.loads(path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("recipe", IMPORTING, ids=lambda path: path.stem)
@pytest.mark.parametrize("file", ["train.json", "inference.json"])
def test_imports_of_a_recipe_replace_those_of_the_config(file: str, recipe: Path) -> None:
    """So they hold all of them but the data set's."""
    imports = json.loads((recipe.parents[1] / file).read_text(encoding="utf-8"))["imports"]
    own = json.loads(recipe.read_text(encoding="utf-8"))["imports"]
    needed = {line for line in imports if "custom.running" in line or line.split(" as ")[0].count(".") < 2}
    assert len(needed) > 3
    assert needed - {line for line in imports if "datasets" in line} <= set(own)
