"""What a training leaves in its planned bundle: the weights, and what follows the network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from custom.checkpoints.find import shipped_weights, trained_weights
from custom.errors import ConfigError
from custom.files import read_json, written_whole
from custom.planning.postprocessing import Postprocessing
from custom.planning.write_bundle import as_json
from custom.running.bundles import labels_of, read_metadata

_STEPS = ("KeepLargestConnectedComponentd", "RemoveSmallObjectsd")


def into_bundle(
    run_dir: Path, bundle: Path, postprocessing: Postprocessing | None, network_def: Mapping[str, Any] | None = None
) -> None:
    """Puts weights, their record and the post-processing into a bundle, which then serves and packs without the run.

    Args:
        run_dir: the folder of model.pt and model.json.
        bundle: its models/ and configs/inference.json are written.
        postprocessing: what follows the network; replaces an earlier choice. None leaves inference.json as it is.
        network_def: another network than inference.json's, such as an ensemble.
    """
    weights, target = trained_weights(run_dir), shipped_weights(bundle)
    if not weights.is_file():
        raise ConfigError(f"{weights} does not exist: the training wrote no weights.")
    config_file = bundle / "configs" / "inference.json"
    config = read_json(config_file)
    if network_def is not None:
        config["network_def"] = dict(network_def)
    if postprocessing is not None:
        steps = postprocessing.transforms(labels_of(read_metadata(bundle)))
        _put_steps(config, steps)
        print(f"Post-processing, chosen on the validation subjects: {postprocessing}.")
    text = as_json(config) + "\n"
    if json.loads(text) != read_json(config_file):
        with written_whole(config_file) as partial:
            partial.write_text(text, encoding="utf-8")
    for path in (weights, weights.with_suffix(".json")):
        if path.is_file():
            with written_whole(target.with_name(path.name)) as partial:
                shutil.copyfile(path, partial)
    serve = f"brainmri label --studies DIR --bundles {bundle}"
    print(f"The bundle {bundle} holds the trained weights. Serve them with: {serve}")


def _put_steps(config: dict[str, Any], steps: list[dict[str, Any]]) -> None:
    """Puts steps after the network's labels, in the place of earlier ones.

    They come before `saving`, on the network's grid. In a bundle that starts from the any-scan weights they come at the
    end of `labelling`, on the scan's grid. Sizes are in mm^3, so that both remove the same pieces.
    """
    at_end = "labelling" in config
    chain = config["labelling"]["transforms"] if at_end else config["saving"]
    others = [step for step in chain if step.get("_target_") not in _STEPS]
    chain[:] = [*others, *steps] if at_end else [*steps, *others]
