"""A bundle as one zip that runs elsewhere: configs, weights, and the part of `custom` that the configs need."""

from __future__ import annotations

import ast
import json
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

import custom
from custom.checkpoints import calibration
from custom.commands.export import export
from custom.errors import CheckpointError
from custom.files import written_whole
from custom.running.workflow import print_call

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


def pack(bundle: Path, files: list[str], mixins: list[str], folder: Path, **overrides: Any) -> Path:
    """Exports a run's weights and writes folder/<bundle>.zip.

    Args:
        bundle: the bundle's folder.
        files: inference.json and mixins.
        mixins: all networks and recipes that the weights were trained with.
        folder: the run's output_dir.
        overrides: settings that the weights were trained with.

    Raises:
        CheckpointError: a file of weights is missing or does not fit.
        ConfigError: an unknown setting.
    """
    exported = export(files, folder, "torchscript", print_call, **overrides)
    settings: dict[str, Any] = {}
    for mixin in mixins:
        for key, value in json.loads(Path(mixin).read_text(encoding="utf-8")).items():
            settings.pop(key, None)  # so that the later one also comes later
            settings[key] = value
    settings.pop("_desc_", None)
    weights = Path(overrides.pop("ckpt_path", folder / "model.pt"))
    return write_zip(bundle, weights, exported, folder / f"{bundle.name}.zip", settings | overrides)


def write_zip(bundle: Path, weights: Path, exported: Path, target: Path, settings: dict[str, Any]) -> Path:
    """Writes the zip: a folder of the bundle's name that `python -m monai.bundle run` takes as it is.

    Args:
        bundle: the bundle's folder.
        weights: model.pt of a training.
        exported: model.ts of the same weights.
        target: the zip's path.
        settings: what the weights were trained with where it isn't the default: {"network_def": ..., "roi_size": ...}.

    Raises:
        CheckpointError: a file of weights is missing.
    """
    for path in (weights, exported):
        if not path.is_file():
            raise CheckpointError(f"There is no {path}: train and export first, or name the run's output_dir.")
    files = [path for path in sorted(bundle.rglob("*")) if path.is_file() and path.parent.name != "models"]
    texts = [path.read_text(encoding="utf-8") for path in files if path.suffix == ".json"]
    with written_whole(target) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            name = f"{bundle.name}/{path.relative_to(bundle).as_posix()}"
            archive.writestr(name, _packed(path, settings))
        beside = weights.with_name(calibration.FILE)  # of classifiers
        for path in (weights, exported, *([beside] if beside.is_file() else [])):
            archive.write(path, f"{bundle.name}/models/{path.name}")
        for module in sorted(needed_modules(texts)):
            archive.write(PACKAGE / module, f"{bundle.name}/custom/{module.as_posix()}")
    return target


def _packed(path: Path, settings: dict[str, Any]) -> bytes:
    """A file's content; configs with the settings as defaults, metadata without this package, which is inside."""
    if path.name == "metadata.json":
        metadata = json.loads(path.read_text(encoding="utf-8"))
        metadata["required_packages_version"].pop("brain-mri-bundles", None)
        return json.dumps(metadata, indent=4).encode()
    if settings and path.name in ("train.json", "inference.json"):
        parser = ConfigParser(json.loads(path.read_text(encoding="utf-8")))
        known = settings if path.name == "train.json" else {key: settings[key] for key in settings if key in parser}
        parser.update(known)
        return json.dumps(parser.get(), indent=4).encode()
    return path.read_bytes()
