"""A bundle as one zip that runs elsewhere: configs, weights, and the part of `custom` that the configs need."""

from __future__ import annotations

import ast
import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

import custom
from custom.checkpoints import calibration
from custom.checkpoints.find import default_weights
from custom.checkpoints.record import read_record
from custom.commands.export import export
from custom.errors import CheckpointError
from custom.files import written_whole
from custom.running.bundles import config_files, described, mixins
from custom.running.description import OF_ONE_COMMAND, option_names, references, resolved
from custom.running.workflow import print_call

OF_THIS_MACHINE = ("command", "config_files", "dataset_dir", "overrides")  # left out of the record in a zip
PACKAGE = Path(custom.__file__).resolve().parent


def needed_modules(texts: Iterable[str]) -> set[Path]:
    """The files of `custom` that are named in some texts, and all that these import, relative to the package.

    Args:
        texts: contents of config files.
    """
    waiting = [name for text in texts for name in re.findall(r"\bcustom(?:\.\w+)*", text)]
    found: set[Path] = set()
    while waiting:
        for path in _files(waiting.pop()):
            if path not in found:
                found.add(path)
                waiting += _imports(ast.parse(path.read_text(encoding="utf-8")))
    return {path.relative_to(PACKAGE) for path in found}


def _files(dotted: str) -> Iterable[Path]:
    """The modules on the way to a dotted name: custom.losses.DiceLoss gives custom and custom.losses."""
    place = PACKAGE
    yield place / "__init__.py"
    for part in dotted.split(".")[1:]:
        if (place / part / "__init__.py").is_file():
            place = place / part
            yield place / "__init__.py"
        elif (place / f"{part}.py").is_file():
            yield place / f"{part}.py"
            return


def _imports(tree: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.split(".")[0] == "custom"]


def pack(
    bundle: Path, files: list[str], network: str | None, recipe: str | None, folder: Path, **overrides: Any
) -> Path:
    """Exports a run's weights and writes folder/<bundle>.zip.

    The packed inference.json needs no training data: what the training took from them (labels, channels) is written
    as constants. metadata.json has the run's channels and labels.

    Args:
        bundle: the bundle's folder.
        files: inference.json and mixins.
        network: of the weights; None for the record's, or the default.
        recipe: of the weights; None for the record's, or none.
        folder: the run's output_dir.
        overrides: options that the weights were trained with.

    Raises:
        CheckpointError: a file of weights is missing or does not fit.
        ConfigError: an unknown option.
    """
    weights = Path(overrides.get("ckpt_path") or default_weights(folder, bundle))
    record = read_record(weights)
    network, recipe = network or record.get("network"), recipe or record.get("recipe")
    settings = _settings_of(config_files(str(bundle), *mixins(str(bundle), network, recipe)))
    of_inference = _settings_of(config_files(str(bundle), *mixins(str(bundle), network, recipe, inference=True)))
    given = {key: value for key, value in overrides.items() if key not in OF_ONE_COMMAND}
    constants = _constants(files, given)
    exported = export(files, folder, "torchscript", print_call, **overrides)
    inference = _updated(_updated(of_inference, given), constants)
    plain = ConfigParser(ConfigParser.load_config_files(files)).get()
    train = {key: value for key, value in given.items() if "dataset_dir" not in references(plain, key)}
    parser = ConfigParser(ConfigParser.load_config_files(files))
    parser.update(given | constants)
    out_channels = int(parser.get_parsed_content("network_def#out_channels"))
    packed = Packed(_updated(settings, train), inference, record, out_channels)
    return write_zip(bundle, weights, exported, folder / f"{bundle.name}.zip", packed)


def _settings_of(files: list[str]) -> dict[str, Any]:
    """The keys of several mixins, the later ones at the end."""
    settings: dict[str, Any] = {}
    for file in files:
        settings = _updated(settings, json.loads(Path(file).read_text(encoding="utf-8")))
    settings.pop("_desc_", None)
    return settings


def _updated(settings: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Both, with the later ones at the end: a config parser takes them in order."""
    return {key: value for key, value in settings.items() if key not in more} | dict(more)


def _constants(files: list[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an inference that depend on the training data, as plain data."""
    parser = ConfigParser(ConfigParser.load_config_files(files))
    parser.update(dict(given))
    parser.parse()
    config = parser.get()
    read = references(config, "inferring") & set(option_names(config))
    return resolved(parser, sorted(name for name in read if "dataset_dir" in references(config, name)))


@dataclass(frozen=True)
class Packed:
    """What makes a packed bundle that of one run.

    Args:
        train: changes of train.json.
        inference: changes of inference.json.
        record: the record beside the weights.
        out_channels: of the network; 0 if it is the bundle's own.
    """

    train: Mapping[str, Any] = field(default_factory=dict)
    inference: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    out_channels: int = 0


def write_zip(bundle: Path, weights: Path, exported: Path, target: Path, packed: Packed) -> Path:
    """Writes the zip: a folder of the bundle's name that `python -m monai.bundle run` takes as it is.

    Args:
        bundle: the bundle's folder.
        weights: model.pt of a training.
        exported: model.ts of the same weights.
        target: the zip's path.
        packed: what the weights were trained with where it is not the default.

    Raises:
        CheckpointError: a file of weights is missing.
    """
    for path in (weights, exported):
        if not path.is_file():
            raise CheckpointError(f"{path} does not exist. Train and export first, or give the output_dir of the run.")
    files = [path for path in sorted(bundle.rglob("*")) if path.is_file() and path.parent.name != "models"]
    texts = [path.read_text(encoding="utf-8") for path in files if path.suffix == ".json"]
    with written_whole(target) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            name = f"{bundle.name}/{path.relative_to(bundle).as_posix()}"
            archive.writestr(name, _packed(path, packed))
        beside = weights.with_name(calibration.FILE)  # of classifiers
        archive.write(weights, f"{bundle.name}/models/model.pt")
        for path in (exported, *([beside] if beside.is_file() else [])):
            archive.write(path, f"{bundle.name}/models/{path.name}")
        if packed.record:
            shared = {key: value for key, value in packed.record.items() if key not in OF_THIS_MACHINE}
            archive.writestr(f"{bundle.name}/models/model.json", json.dumps(shared, indent=4) + "\n")
        for module in sorted(needed_modules(texts)):
            archive.write(PACKAGE / module, f"{bundle.name}/custom/{module.as_posix()}")
    return target


def _packed(path: Path, packed: Packed) -> bytes:
    """A file's content; configs with the run's options as defaults, metadata with its channels and labels."""
    if path.name == "metadata.json":
        metadata = json.loads(path.read_text(encoding="utf-8"))
        metadata["required_packages_version"].pop("brain-mri-bundles", None)  # it is inside
        return json.dumps(described(metadata, packed.record, packed.out_channels), indent=4).encode()
    changes = {"train.json": packed.train, "inference.json": packed.inference}.get(path.name)
    if changes is None or path.parent.name != "configs":
        return path.read_bytes()
    parser = ConfigParser(json.loads(path.read_text(encoding="utf-8")))
    is_planned = Path(parser.get("dataset_dir", "")).is_absolute()
    if not changes and not is_planned:
        return path.read_bytes()
    if is_planned:
        parser["dataset_dir"] = f"data/{Path(parser['dataset_dir']).name}"
        if "from_weights" in parser:
            parser["from_weights"] = "shipped"  # its own: those that it started from stay behind
    known = changes if path.name == "train.json" else {key: changes[key] for key in changes if key in parser}
    parser.update(dict(known))
    return json.dumps(parser.get(), indent=4).encode()
