"""The curves of a training, from its TensorBoard files."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from custom.errors import MissingDataError


def read_scalars(log_dir: str | Path) -> dict[str, tuple[list[int], list[float]]]:
    """{name: (steps, values)} of all event files of a folder; steps that a resumed run repeated count once.

    Raises:
        MissingDataError: the folder has no event file.
    """
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util import tensor_util

    files = sorted(Path(log_dir).glob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise MissingDataError(f"{log_dir} holds no TensorBoard file. Train first, or give the run's output_dir.")
    points: dict[str, dict[int, float]] = {}
    for path in files:
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    points.setdefault(value.tag, {})[event.step] = float(tensor_util.make_ndarray(value.tensor))
    curves = {}
    for name, values in points.items():
        steps = sorted(values)
        curves[name] = steps, [values[step] for step in steps]
    return curves


def curves_figure(log_dir: str | Path) -> Figure:
    """Loss, learning rate and validation metrics over a run.

    Args:
        log_dir: the folder of the event files.
    """
    scalars = read_scalars(log_dir)
    groups: dict[str, list[str]] = {}
    for name in scalars:
        groups.setdefault(name.split("/")[0], []).append(name)
    figure = Figure(figsize=(5 * len(groups), 4), layout="constrained")
    for ax, (group, names) in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True):
        for name in names:
            steps, values = scalars[name]
            ax.plot(steps, values, marker="o" if len(steps) < 50 else None, markersize=3, label=name.split("/")[-1])
        ax.set(title=group, xlabel="epoch" if group == "validation" else "step")
        ax.grid(alpha=0.3)
        ax.legend()
    return figure
