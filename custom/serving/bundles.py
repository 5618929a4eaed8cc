"""A bundle as the server sees it: its channels, labels and weights, and how it segments one study."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

import custom
from custom.checkpoints.find import Weights, choose, find_weights
from custom.checkpoints.load import load_checkpoint, load_weights
from custom.checkpoints.record import sha256_of
from custom.errors import BrainMRIError, ConfigError
from custom.files import NO_JSON
from custom.running import Predictor
from custom.running.bundles import find_bundle, find_bundles, full_name, read_metadata
from custom.running.declared import declared, has_masks, is_zoo_form, kind_of
from custom.running.zoo_form import ZooLabelling, zoo_parser
from custom.serving import progress
from custom.serving.contrasts import contrast_of
from custom.serving.foreign import check_code, unknown_channels
from custom.serving.grids import save_labels
from custom.serving.outputs import OUTPUTS, PRED, Result, label_map, trust
from custom.serving.uncertainty import uncertainty_of

logger = logging.getLogger(__name__)
_MAX_PREDICTORS = 4  # networks that stay in memory


@dataclass(frozen=True)
class ServedBundle:
    """One bundle with weights.

    Args:
        name: as in metadata.json.
        version: of the bundle.
        description: one sentence for the viewer.
        root: the folder of the bundle.
        output_dir: where its trained and corrected weights are.
        channels: the contrast of each input in order ("T1", "T2", "T1ce", "FLAIR"); (None,) for any single scan.
        labels: {"CSF": 1, ...}, without the background; codes from 1 to 255.
        weights: "newest", or the name of the weights to serve.
        network: a mixin of configs/networks, if the weights belong to another network than the default.
        metadata: the content of metadata.json.
        modality: of its images: "MR", "CT", ...; "" if it is not declared.
        output: which result of custom.running.Predictor the label map is: "pred", or one of custom.serving.outputs.
    """

    name: str
    version: str
    description: str
    root: Path
    output_dir: Path
    channels: tuple[str | None, ...]
    labels: Mapping[str, int]
    weights: str = "newest"
    network: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    modality: str = ""
    output: str = PRED

    def models(self) -> list[ServedBundle]:
        """This one, and one more for each of the "more_outputs" of metadata.json. All use one network, loaded once."""
        more = [
            replace(
                self,
                name=f"{self.name}_{name}",
                description=f"{OUTPUTS[name].title}. {custom.RESEARCH_USE_ONLY}",
                labels=OUTPUTS[name].labels,
                output=name,
            )
            for name in self.metadata.get("more_outputs", ())
            if name in OUTPUTS
        ]
        return [self, *more]

    def files(self, config: str) -> list[str]:
        """The paths of a config file and of the network's mixin."""
        mixins = [f"networks/{self.network}.json"] if self.network else []
        return [str(self.root / "configs" / name) for name in (config, *mixins)]

    @property
    def is_trained(self) -> bool:
        """Whether corrected labels train it: its metadata says how train.json takes them ("own_labels")."""
        declares = self.output == PRED and "own_labels" in self.metadata
        return declares and (self.root / "configs" / "train.json").is_file()

    def find_weights(self) -> list[Weights]:
        """All weights of this bundle and network, the newest first."""
        return find_weights(self.root, self.output_dir, self.network)

    def choose_weights(self, name: str | None = None) -> Weights:
        """The weights of this name; without a name, those that are served.

        Raises:
            CheckpointError: the bundle has no weights.
            ConfigError: it has no weights of this name.
        """
        return choose(self.find_weights(), name or self.weights, self.name)

    def version_of(self, result: Mapping[str, Any]) -> str:
        """The version in a DICOM object: of the bundle, and the weights of a result of SegmentationTask."""
        return f"{self.version}, weights {result['weights']} {result['weights_sha256'][:12]}"

    def check(self, weights: Weights) -> None:
        """Raises CheckpointError if the weights are damaged or belong to another network."""
        parser = ConfigParser()
        parser.read_config(self.files("inference.json"))
        parser["bundle_root"] = str(self.root)
        load_weights(parser.get_parsed_content("network_def"), load_checkpoint(weights.path), weights.path)

    def segment(
        self,
        images: Sequence[str],
        output_dir: Path,
        weights: Weights,
        device: str,
        one: progress.Segmentation | None = None,
        measured: bool = False,
    ) -> Result:
        """Segments one study. Other calls in this process wait until it is done.

        The network stays in memory, so that the next call with the same weights and device is faster.

        Args:
            images: a file for each channel, all on one grid.
            output_dir: a folder for the result.
            weights: which weights to use.
            device: as torch names it.
            one: is told how far the network is.
            measured: whether the network's uncertainty is measured too, which takes about a tenth longer.

        Raises:
            DataError: a scan that cannot be used, or that shows no head where the bundle can tell.
            CheckpointError: weights of another network.
            CancelledError: the segmentation was cancelled.
        """
        output = self.metadata["network_data_format"]["outputs"]["pred"]
        masks = has_masks(self.metadata)
        uncertainties: list[float] = []

        def measure(logits: torch.Tensor) -> None:
            uncertainties.append(uncertainty_of(logits, masks, output.get("num_classes")))

        with progress.turn(one):
            predictor = _predictor(
                tuple(self.files("inference.json")), str(weights.path), sha256_of(weights.path), device
            )
            image = list(images) if len(images) > 1 else images[0]
            areas = self.output == "areas"
            result = predictor.predict(image, on_logits=measure if measured else None, areas=areas)
        labels = save_labels(label_map(self.output, result), result["affine"], output_dir / "labels.nii.gz")
        expected, warnings = trust(result, predictor, Path(images[0]).name)
        return Result(labels, uncertainties[0] if measured else None, expected, warnings)


@functools.lru_cache(maxsize=_MAX_PREDICTORS)
def _predictor(files: tuple[str, ...], weights: str, sha256: str, device: str) -> Predictor:
    """A bundle with its weights, loaded once. `sha256` makes it load again when a training has replaced the file."""
    logger.info("Loading %s (%s) on %s", weights, sha256[:12], device)
    predictor = Predictor(list(files), ckpt_path=weights, device=device)
    progress.watch(predictor.network)
    inferer = predictor.inferer

    def counted(image: torch.Tensor, network: Any) -> Any:
        progress.expect(inferer, image[0])
        return inferer(image, network)

    predictor.inferer = counted
    return predictor


def load_bundles(
    names: Sequence[str],
    runs: Path,
    weights: str = "newest",
    check: Callable[[ServedBundle], Any] = ServedBundle.choose_weights,
) -> dict[str, ServedBundle]:
    """The models to serve, by their names: bundles of this project or in MONAI's zoo form, and their structures.

    Args:
        names: unique parts of the names of segmentation bundles, or folders as custom.running.bundles.find_bundle takes
            them, each with ":network" for another network than the default; empty for all bundles that pass the check.
        runs: the folder in which a training wrote <bundle>/model.pt.
        weights: "newest", "shipped", "trained" or a time, for all of them; or "iseg=shipped,brats_mri_tumor=newest".
        check: raises a BrainMRIError if a bundle cannot be served, for example because it has no weights.

    Raises:
        ConfigError: a name that no segmentation bundle has, or an unknown network.
        BrainMRIError: a named bundle does not pass the check.
    """
    elsewhere: dict[str, Path] = {}
    parts = [_named(name, elsewhere) for name in names]
    everything = find_bundles() | elsewhere
    known = {name: root for name, root in everything.items() if name in elsewhere or _segments(root)}
    chosen = [_find(part, known) for part in parts] or [(name, None) for name in known]
    weights_of = _weights_by_bundle(weights, known)
    served: dict[str, ServedBundle] = {}
    reasons: list[str] = []
    for name, network in chosen:
        try:
            bundle = load_bundle(name, known[name], runs / name, weights_of.get(name, weights_of[""]), network)
            check(bundle)
        except BrainMRIError as error:
            if names:
                raise
            logger.warning("%s is not served: %s", name, error)
            reasons.append(str(error))
        else:
            served[name] = bundle
    if not served:
        raise ConfigError(f"No bundle can be served: {' '.join(reasons)}")
    check_code({name: bundle.root for name, bundle in served.items()})
    return {model.name: model for bundle in served.values() for model in bundle.models()}


def _segments(root: Path) -> bool:
    try:
        return kind_of(read_metadata(root)) == "segmentation"
    except (*NO_JSON, OSError):  # a broken bundle does not hide the others
        return False


def _named(name: str, elsewhere: dict[str, Path]) -> str:
    """The name, with a folder's path replaced by the name of its bundle, which is added to `elsewhere`."""
    for part, mark, network in ((name, "", ""), name.rpartition(":")):
        if part and Path(part).expanduser().is_dir():
            folder = find_bundle(part)
            elsewhere[folder.name] = folder
            return f"{folder.name}{mark}{network}"
    return name


def _find(name: str, known: Mapping[str, Path]) -> tuple[str, str | None]:
    """The segmentation bundle and the network that "part" or "part:network" stands for."""
    part, _, network = name.partition(":")
    bundle = full_name(part, known, "segmentation bundle")
    networks = sorted(path.stem for path in known[bundle].glob("configs/networks/*.json"))
    if network and network not in networks:
        raise ConfigError(f"{bundle} has no network {network!r}. Use one of: {', '.join(networks) or 'none'}.")
    return bundle, network or None


def _weights_by_bundle(setting: str, known: Mapping[str, Path]) -> dict[str, str]:
    """{bundle: weights} of "newest" or "iseg=shipped,..."; "" stands for all bundles that are not named."""
    if "=" not in setting:
        return {"": setting}
    pairs = [part.split("=", 1) for part in setting.split(",") if "=" in part]
    return {"": "newest"} | {_find(part, known)[0]: weights for part, weights in pairs}


def load_bundle(name: str, root: Path, output_dir: Path, weights: str, network: str | None) -> ServedBundle:
    """One bundle, by what it declares; without its weights.

    Raises:
        ConfigError: it cannot be served.
    """
    own, metadata = declared(root), read_metadata(root)
    channels = tuple(contrast_of(channel) for channel in own.channels)
    if len(channels) > 1 and (unknown := unknown_channels(own.channels)):
        raise ConfigError(f"{name} cannot be served. {unknown} Correct channel_def in its metadata.json.")
    labels: Mapping[int, str] = own.labels
    if is_zoo_form(metadata) and own.has_masks:
        labels = ZooLabelling(zoo_parser([str(root / "configs" / "inference.json")], {})).labels
    return ServedBundle(
        name=name,
        version=own.version,
        description=f"{own.task}. {custom.RESEARCH_USE_ONLY}",
        root=root,
        output_dir=output_dir,
        channels=channels,
        labels={label: code for code, label in labels.items() if code},
        weights=weights,
        network=network,
        metadata=metadata,
        modality=own.modality,
    )
