"""A bundle as the server sees it: its channels, labels and weights, and one study segmented by its inference.json."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

import custom
from custom.checkpoints.find import Weights, choose, find_weights
from custom.checkpoints.load import load_checkpoint, load_weights
from custom.errors import BrainMRIError, ConfigError
from custom.running.bundles import find_bundles
from custom.running.workflow import StrictWorkflow
from custom.serving.contrasts import contrast_of

logger = logging.getLogger(__name__)
_ONE_AT_A_TIME = threading.Lock()  # one study fills the memory and all cores


@dataclass(frozen=True)
class ServedBundle:
    """One bundle with weights.

    Args:
        name: the bundle's, in metadata.json.
        version: the bundle's.
        description: one sentence for the viewer.
        root: its folder.
        output_dir: where its own and corrected weights lie.
        channels: the contrast of each input in order ("T1", "T2", "T1ce", "FLAIR"); (None,) for any one scan.
        labels: {"CSF": 1, ...}, without the background.
        weights: "newest", or the name of the weights to serve.
        network: a mixin of configs/networks, where the weights are of another network than the default.
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

    def files(self, config: str, *recipes: str) -> list[str]:
        """A config file's path, those of recipes, and the network's."""
        mixins = [f"recipes/{name}.json" for name in recipes] + [f"networks/{name}.json" for name in self._networks()]
        return [str(self.root / "configs" / name) for name in (config, *mixins)]

    def _networks(self) -> list[str]:
        return [self.network] if self.network else []

    def find_weights(self) -> list[Weights]:
        return find_weights(self.root, self.output_dir, self.network)

    def choose_weights(self, wanted: str | None = None) -> Weights:
        return choose(self.find_weights(), wanted or self.weights, self.name)

    def check(self, weights: Weights) -> None:
        """Raises CheckpointError where weights are damaged, or another network's."""
        parser = ConfigParser()
        parser.read_config(self.files("inference.json"))
        load_weights(parser.get_parsed_content("network_def"), load_checkpoint(weights.path), weights.path)

    def segment(self, images: Sequence[str], output_dir: Path, weights: Weights, device: str) -> tuple[Path, float]:
        """Runs inference.json on one study, one at a time in this process.

        Args:
            images: a file for each channel, on one grid.
            output_dir: an empty folder for the result.
            weights: the weights.
            device: as torch names it.

        Returns:
            The label map (NIfTI, uint8, on the first file's grid), and how uncertain the network was (Uncertainty).

        Raises:
            DataError: a scan that can't be used.
            CheckpointError: weights of another network.
        """
        data = [{"image": list(images) if len(images) > 1 else images[0]}]
        settings = {"data": data, "output_dir": str(output_dir), "ckpt_path": str(weights.path), "device": device}
        with _ONE_AT_A_TIME:
            workflow = StrictWorkflow(
                self.files("inference.json"), logging_file=False, workflow_type="infer", run_id="inferring", **settings
            )
            workflow.initialize()
            evaluator = workflow.parser.get_parsed_content("evaluator")
            classes = _output(self.root).get("num_classes")  # where further channels are no classes
            evaluator.inferer = measured = Uncertainty(evaluator.inferer, self._has_masks(), classes)
            workflow.run()
            workflow.finalize()
        (labels,) = (output_dir / "segmentations").glob("*.nii.gz")
        return labels, measured.value

    def _has_masks(self) -> bool:
        return len(_output(self.root)["channel_def"]) == len(self.labels)


class Uncertainty:
    """An inferer that also measures how uncertain the network is.

    `value`: the entropy of its probabilities in bits, summed over all voxels, for each voxel that it labels; the larger
    of it and 1 is taken for the labelled voxels, so that a scan in which it finds nothing counts as very uncertain.

    Args:
        inferer: the bundle's own.
        masks: whether channels are masks by sigmoids, without a background, instead of exclusive classes.
        classes: how many channels are classes, the first ones; None for all.
    """

    def __init__(self, inferer: Any, masks: bool, classes: int | None = None) -> None:
        self.inferer = inferer
        self.masks = masks
        self.classes = classes
        self.value = 0.0

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        logits = self.inferer(inputs, network, *args, **kwargs)
        plain = torch.as_tensor(logits).detach().float()[:, : self.classes]
        if self.masks:
            entropy = torch.distributions.Bernoulli(logits=plain).entropy().sum()
            labelled = (plain > 0).any(dim=1).sum()
        else:
            entropy = torch.distributions.Categorical(logits=plain.movedim(1, -1)).entropy().sum()
            labelled = (plain.argmax(dim=1) > 0).sum()
        self.value = round(float(entropy) / 0.6931471805599453 / max(1, int(labelled)), 6)
        return logits


def load_bundles(
    names: Sequence[str],
    runs: Path,
    weights: str = "newest",
    check: Callable[[ServedBundle], Any] = ServedBundle.choose_weights,
) -> dict[str, ServedBundle]:
    """The bundles to serve, by their names.

    Args:
        names: of segmentation bundles, any unique part of them, each with ":network" where it isn't the default; empty
            for all that pass the check.
        runs: the folder whose <bundle>/model.pt a training wrote.
        weights: "newest", "shipped", "trained" or a time, for all of them; or "iseg=shipped,brats_mri_tumor=newest".
        check: raises a BrainMRIError where a bundle can't be served: it has no weights.

    Raises:
        ConfigError: a name that no segmentation bundle has, a network that it hasn't.
        BrainMRIError: what `check` says of a named bundle.
    """
    known = {name: root for name, root in find_bundles().items() if _output(root).get("format") == "segmentation"}
    asked = [_part(name, known) for name in names] or [(name, None) for name in known]
    wanted = _weights_of(weights, known)
    served = {name: _load(name, known[name], runs / name, wanted(name), network) for name, network in asked}
    reasons: list[str] = []
    for bundle in list(served.values()):
        try:
            check(bundle)
        except BrainMRIError as error:
            if names:
                raise
            logger.warning("Not served: %s", error)
            reasons.append(str(error))
            del served[bundle.name]
    if not served:
        raise ConfigError(f"No bundle can be served: {' '.join(reasons)}")
    return served


def _part(asked: str, known: Mapping[str, Path]) -> tuple[str, str | None]:
    part, _, network = asked.partition(":")
    found = [name for name in known if name == part] or [name for name in known if part and part in name]
    if len(found) != 1:
        raise ConfigError(
            f"{part!r} names {found or 'no segmentation bundle'}: write enough of one of {sorted(known)}."
        )
    mixins = sorted(path.stem for path in known[found[0]].glob("configs/networks/*.json"))
    if network and network not in mixins:
        raise ConfigError(f"{found[0]} has no network {network!r}: name one of {mixins}.")
    return found[0], network or None


def _weights_of(setting: str, known: Mapping[str, Path]) -> Any:
    if "=" not in setting:
        return lambda name: setting
    pairs = dict(part.split("=", 1) for part in setting.split(",") if "=" in part)
    by_name = {_part(part, known)[0]: value for part, value in pairs.items()}
    return lambda name: by_name.get(name, "newest")


def _load(name: str, root: Path, output_dir: Path, weights: str, network: str | None) -> ServedBundle:
    metadata = json.loads((root / "configs" / "metadata.json").read_text(encoding="utf-8"))
    pred = metadata["network_data_format"]["outputs"]["pred"]
    names = pred.get("labels", pred["channel_def"])  # a result's labels, where they aren't the network's channels
    outputs = [names[str(n)] for n in range(len(names))]
    inputs = metadata["network_data_format"]["inputs"]["image"]["channel_def"]
    first = 0 if outputs[0] == "background" else 1  # masks have no channel for it
    return ServedBundle(
        name=name,
        version=metadata["version"],
        description=f"{metadata['task']}. {custom.RESEARCH_USE_ONLY}",
        root=root,
        output_dir=output_dir,
        channels=tuple(contrast_of(inputs[str(n)]) for n in range(len(inputs))),
        labels={label: code for code, label in enumerate(outputs, start=first) if code},
        weights=weights,
        network=network,
    )


def _output(root: Path) -> dict[str, Any]:
    metadata = json.loads((root / "configs" / "metadata.json").read_text(encoding="utf-8"))
    return metadata.get("network_data_format", {}).get("outputs", {}).get("pred", {})
