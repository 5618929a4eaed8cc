"""Where bundles and their config files lie."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from custom.errors import ConfigError
from custom.files import NO_JSON

if TYPE_CHECKING:
    from monai.bundle import ConfigParser  # its import takes seconds


BUNDLES = "BRAINMRI_BUNDLES"  # variable of the environment: folders of bundles, or of folders of bundles
PLANNED = "_bundle"  # what the name of a planned bundle adds to the name of the folder of labelled scans


def find_bundles() -> dict[str, Path]:
    """Every bundle that came with this package, and those of BRAINMRI_BUNDLES: its name and its folder.

    Raises:
        ConfigError: BRAINMRI_BUNDLES names a folder without a bundle.
    """
    package = Path(__file__).resolve().parents[1]
    places = (package / "bundles", package.parent / "bundles")  # installed, and in the repository
    folders = [metadata.parents[1] for place in places for metadata in sorted(place.glob("*/configs/metadata.json"))]
    for text in filter(None, os.environ.get(BUNDLES, "").split(os.pathsep)):
        place = Path(text).expanduser().absolute()
        own = bundles_in(place)
        if not own:
            raise ConfigError(
                f"{BUNDLES} names {text}, which holds no bundle. Name folders with configs/metadata.json."
            )
        folders += own
    return {folder.name: folder for folder in folders}


def bundles_in(folder: Path) -> list[Path]:
    """A bundle itself, or the bundles that lie in a folder, which may be none."""
    return [folder] if is_bundle(folder) else [path for path in sorted(folder.glob("*")) if is_bundle(path)]


def is_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle."""
    return (folder / "configs" / "metadata.json").is_file()


def planned_bundle(folder: str | Path) -> Path:
    """Where the plan of a folder of labelled scans lies: FOLDER_bundle in the current folder, or beside the folder."""
    data = Path(os.path.abspath(Path(folder).expanduser()))  # noqa: PTH100  # without "..", but links stay
    here, beside = Path.cwd() / f"{data.name}{PLANNED}", data.with_name(f"{data.name}{PLANNED}")
    return beside if is_bundle(beside) and not is_bundle(here) else here


def find_bundle(part: str) -> Path:
    """The folder of a bundle.

    Args:
        part: a unique part of the name of a known bundle; or a path, of a bundle or of a folder of labelled scans that
            has a planned bundle. A word without a separator is first taken for a name.

    Raises:
        ConfigError: no bundle or several bundles match.
    """
    path, bundles = Path(part).expanduser(), find_bundles()
    is_path = part.startswith((".", "~")) or len(path.parts) > 1
    if not is_path and len(_matching(part, bundles)) == 1:
        return bundles[full_name(part, bundles)]
    for folder in (Path(os.path.abspath(path)), planned_bundle(path)):  # noqa: PTH100
        if part and path.is_dir() and is_bundle(folder):
            return _on_path(folder)
    if is_path:
        raise ConfigError(f"{part} is no bundle: it has no configs/metadata.json. Name a bundle or its folder.")
    return bundles[full_name(part, bundles)]


def _on_path(folder: Path) -> Path:
    """The folder. It is on sys.path now, as MONAI does for a bundle that it runs: bundle_root finds it there."""
    if str(folder) not in sys.path:
        sys.path.insert(1, str(folder))
    return folder


def full_name(part: str, names: Collection[str], noun: str = "bundle") -> str:
    """The only one of some bundles' names that contains `part`, or equals it.

    Args:
        part: what the user typed.
        names: of the bundles to choose from.
        noun: what the error message calls them if none matches.

    Raises:
        ConfigError: none of the names or several names match.
    """
    matches = _matching(part, names)
    if len(matches) != 1:
        problem = f"matches several bundles: {', '.join(matches)}" if matches else f"matches no {noun}"
        raise ConfigError(f"{part!r} {problem}. Use a unique part of one of: {', '.join(sorted(names))}.")
    return matches[0]


def _matching(part: str, names: Collection[str]) -> list[str]:
    return [name for name in names if part == name] or [name for name in names if part and part in name]


def bundle_root(name: str) -> str:
    """The folder of the bundle that is being run.

    MONAI puts the folder of the bundle whose config it runs on sys.path. So a copy or an unzipped bundle finds itself.
    Otherwise it is the bundle of that name that came with this package.

    Args:
        name: the bundle's `name` in configs/metadata.json, and the name of its folder.

    Raises:
        FileNotFoundError: there is no such bundle.
    """
    for folder in map(Path, sys.path):
        if is_bundle(folder) and _name_of(folder) == name:
            return str(folder.resolve())
    if name not in find_bundles():
        raise FileNotFoundError(f"There is no bundle {name!r}, only {sorted(find_bundles())}.")
    return str(find_bundles()[name])


def _name_of(bundle_folder: Path) -> str:
    """The name in a bundle's metadata; "" if it cannot be read: another bundle must not stop the one that is run."""
    try:
        return str(read_metadata(bundle_folder).get("name", ""))
    except (OSError, *NO_JSON, AssertionError):
        return ""


def read_metadata(bundle_folder: Path) -> dict[str, Any]:
    """The content of a bundle's configs/metadata.json."""
    content = json.loads((bundle_folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def described(metadata: dict[str, Any], record: Mapping[str, Any], out_channels: int) -> dict[str, Any]:
    """A bundle's metadata with the channels and labels of a run.

    Args:
        metadata: the content of metadata.json, which is changed.
        record: of the run's weights.
        out_channels: of its network.
    """
    formats = metadata["network_data_format"]
    image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
    channels, labels = list(record.get("channels", ())), dict(record.get("labels", {}))
    if channels:
        image["num_channels"] = len(channels)
        image["channel_def"] = {str(number): name for number, name in enumerate(channels)}
    if not labels or (labels == pred.get("labels", pred["channel_def"]) and out_channels == pred["num_channels"]):
        return metadata
    for key in ("labels", "num_classes"):
        pred.pop(key, None)
    pred["num_channels"] = out_channels
    if len(labels) == out_channels:
        pred["channel_def"] = labels
    else:
        pred["channel_def"] = {str(number): f"output {number}" for number in range(out_channels)}
        pred["labels"] = labels
    return metadata


def channels_of(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the image's channels in their order, as a bundle's metadata declares them."""
    names = metadata["network_data_format"]["inputs"]["image"]["channel_def"]
    return tuple(str(names[str(channel)]) for channel in range(len(names)))


def labels_of(metadata: Mapping[str, Any]) -> dict[int, str]:
    """{0: "background", 1: ...}: the meaning of a result's values, as a bundle's metadata declares it.

    These are the network's output channels, unless metadata declares "labels" of the result itself. Channels that are
    masks have none for the background: it is added.
    """
    output = metadata["network_data_format"]["outputs"]["pred"]
    names = output.get("labels", output["channel_def"])
    labels = [str(names[str(code)]) for code in range(len(names))]
    return dict(enumerate(labels if labels[0].lower() == "background" else ["background", *labels]))


def channels_of_run(parser: ConfigParser) -> tuple[str, ...]:
    """The names of a run's input channels: its own `channels`, which a recipe may set, or else its bundle's."""
    if "channels" in parser:
        return tuple(str(name) for name in parser.get_parsed_content("channels"))
    return channels_of(parser["_meta_"])


def labels_of_run(parser: ConfigParser) -> dict[int, str]:
    """The meaning of a run's label values: its own `labels`, which a recipe may set, or else its bundle's."""
    if "labels" in parser:
        return {int(code): str(name) for code, name in parser.get_parsed_content("labels").items()}
    return labels_of(parser["_meta_"])


def config_files(bundle: str, *names: str | None) -> list[str]:
    """Paths of a bundle's config files. None stands for a mixin that was not asked for.

    Raises:
        ConfigError: no such bundle or file.
    """
    folder = find_bundle(bundle) / "configs"
    for path in (folder / name for name in names if name):
        if not path.is_file():
            known = sorted(other.stem for other in path.parent.glob("*.json"))
            raise ConfigError(f"{path.parent} has no file {path.name}. Use one of: {', '.join(known)}.")
    return [str(folder / name) for name in names if name]


def mixins(bundle: str, network: str | None, recipe: Any, inference: bool = False) -> list[str]:
    """File names of a network and of recipes, as `config_files` takes them.

    Args:
        bundle: any unique part of a bundle's name.
        network: the stem of a file in configs/networks, the path of any other mixin (*.json), or None for the default.
        recipe: one name, several as "a,b" or as a list, or None.
        inference: leave out recipes that change the training only, and print their names.
    """
    given = recipe if isinstance(recipe, (list, tuple)) else str(recipe or "").split(",")
    names = [name for name in (str(entry).strip() for entry in given) if name]
    if inference:
        of_training = [name for name in names if _changes_training_only(bundle, name)]
        names = [name for name in names if name not in of_training]
        if of_training:
            print(f"Not used here, since it changes the training only: {', '.join(of_training)}.")
    return [*([_network_file(network)] if network else []), *(f"recipes/{name}.json" for name in names)]


def _network_file(network: str) -> str:
    """Of a name the file in configs/networks; of a path its absolute path, which `config_files` keeps."""
    return str(Path(network).expanduser().absolute()) if network.endswith(".json") else f"networks/{network}.json"


def _changes_training_only(bundle: str, recipe: str) -> bool:
    """Whether a recipe sets nested keys that inference.json does not have."""
    (base,) = config_files(bundle, "inference.json")
    (own,) = config_files(bundle, f"recipes/{recipe}.json")
    known, keys = (json.loads(Path(path).read_text(encoding="utf-8")) for path in (base, own))
    return any("#" in key and key.split("#")[0] not in known for key in keys)


def output_dir_of(files: list[str], given: str | None) -> Path:
    """The folder that a run of these config files writes to: `given`, or the first file's default."""
    return Path(given or json.loads(Path(files[0]).read_text(encoding="utf-8"))["output_dir"])
