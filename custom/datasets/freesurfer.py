"""FreeSurfer's label codes, and its segmentations (aparc+aseg) as label maps to train on.

The codes, names and colours are those of FreeSurferColorLUT.txt
(https://surfer.nmr.mgh.harvard.edu/fswiki/FsTutorial/AnatomicalROI/FreeSurferColorLUT). Fischl et al. 2002, "Whole
brain segmentation", Neuron 33(3), 341-355; Desikan et al. 2006, NeuroImage 31(3), 968-980, for the cortical areas.

Files: any folder with <name>aparc+aseg.mgz, .nii or .nii.gz in it or below it, as recon-all writes them in SUBJECT/mri.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from custom.errors import MissingDataError
from custom.reading.labels import LabelCodes
from custom.reading.volumes import existing_folder, natural_order, open_volume, read_problem

CHANNELS = ("any MRI contrast",)
HOW_TO_GET = "Give a folder of FreeSurfer's subjects, with mri/aparc+aseg.mgz in each, or of such files."


@dataclass(frozen=True)
class Structure:
    """One structure of the brain.

    Args:
        name: in lower case.
        tissue: "CSF", "GM" or "WM".
        left: FreeSurfer's code of the left side.
        right: that of the right side, equal to `left` if the structure has one code only.
        more: further codes that count to it, {code: side} with 0 for none, 1 for left, 2 for right.
        title: FreeSurfer's name, after Left- or Right- if it has two sides. Code 24 is CSF in FreeSurfer, and here
            all fluid: around the brain and in the ventricles.
        colour: red, green, blue, 0 to 255.
    """

    name: str
    tissue: str
    left: int
    right: int
    title: str
    colour: tuple[int, int, int]
    more: tuple[tuple[int, int], ...] = ()

    @property
    def has_sides(self) -> bool:
        """Whether left and right have codes of their own."""
        return self.left != self.right


# In the order of a network's outputs, after the background.
# Corpus callosum is white matter; choroid plexus and the inferior horns count to the lateral ventricles.
STRUCTURES = (
    Structure("cerebral white matter", "WM", 2, 41, "Cerebral-White-Matter", (245, 245, 245),
              ((25, 1), (57, 2), (77, 0), (78, 1), (79, 2), *((code, 0) for code in range(251, 256)))),
    Structure("cerebral cortex", "GM", 3, 42, "Cerebral-Cortex", (205, 62, 78),
              (*((code, 1) for code in range(1000, 1036)), *((code, 2) for code in range(2000, 2036)))),
    Structure("lateral ventricle", "CSF", 4, 43, "Lateral-Ventricle", (120, 18, 134),
              ((5, 1), (44, 2), (31, 1), (63, 2), (136, 1), (163, 2), (137, 1), (164, 2))),
    Structure("cerebellar white matter", "WM", 7, 46, "Cerebellum-White-Matter", (220, 248, 164)),
    Structure("cerebellar cortex", "GM", 8, 47, "Cerebellum-Cortex", (230, 148, 34)),
    Structure("thalamus", "GM", 10, 49, "Thalamus", (0, 118, 14)),
    Structure("caudate", "GM", 11, 50, "Caudate", (122, 186, 220)),
    Structure("putamen", "GM", 12, 51, "Putamen", (236, 13, 176)),
    Structure("pallidum", "GM", 13, 52, "Pallidum", (12, 48, 255)),
    Structure("third to fifth ventricle", "CSF", 14, 14, "3rd-Ventricle", (204, 182, 142), ((15, 0), (72, 0))),
    Structure("brain stem", "WM", 16, 16, "Brain-Stem", (119, 159, 176)),
    Structure("hippocampus", "GM", 17, 53, "Hippocampus", (220, 216, 20)),
    Structure("amygdala", "GM", 18, 54, "Amygdala", (103, 255, 255)),
    Structure("CSF around the brain", "CSF", 24, 24, "CSF-around-brain", (60, 60, 60)),
    Structure("accumbens", "GM", 26, 58, "Accumbens-area", (255, 165, 0)),
    Structure("ventral diencephalon", "WM", 28, 60, "VentralDC", (165, 42, 42)),
)  # fmt: skip
VENTRICLES = "third to fifth ventricle"  # one output; the fourth is told apart by its place
AROUND_BRAIN = 24  # the code of fluid around the brain, which noise imitates
FOURTH_VENTRICLE = (15, "4th-Ventricle", (42, 204, 164))
LABELS = {0: "background", **{number: structure.name for number, structure in enumerate(STRUCTURES, start=1)}}
SIDE_CHANNEL = len(LABELS)  # a network's last output: positive on the left
# What shares an intensity in a scan, as SAMSEG's Gaussians do (Puonti et al. 2016, NeuroImage 143, 235-249).
_GROUPS = (
    ("lateral ventricle", "third to fifth ventricle", "CSF around the brain"),
    ("cerebral cortex", "cerebellar cortex", "caudate", "accumbens", "hippocampus", "amygdala"),
    ("cerebral white matter", "cerebellar white matter"),
    ("brain stem", "ventral diencephalon"),
    ("thalamus",),
    ("putamen",),
    ("pallidum",),
)
# Of each output but the side: the number of its tissue and of its group, and its codes; 0 for the background.
TISSUE_NAMES = ("CSF", "GM", "WM")
TISSUE_NUMBERS = [0, *(1 + TISSUE_NAMES.index(structure.tissue) for structure in STRUCTURES)]
GROUP_NUMBERS = [
    0,
    *(next(n for n, group in enumerate(_GROUPS, 1) if structure.name in group) for structure in STRUCTURES),
]
LEFT_CODES = [0, *(structure.left for structure in STRUCTURES)]
RIGHT_CODES = [0, *(structure.right for structure in STRUCTURES)]
_TABLE = {
    code: (structure.name, side)
    for structure in STRUCTURES
    for code, side in (
        *(((structure.left, 1), (structure.right, 2)) if structure.has_sides else ((structure.left, 0),)),
        *structure.more,
    )
}
CODES = {code: name for code, (name, _) in _TABLE.items()}
SIDES = {code: side for code, (_, side) in _TABLE.items() if side}
TISSUES = {structure.name: structure.tissue for structure in STRUCTURES}
MAP_CODES = range(max(CODES) + 1)  # the codes that a map may hold: a code without a name in CODES counts as background


def outputs_of(labels: Mapping[int, str]) -> list[list[int]] | None:
    """For each label, the network's outputs that count to it: a structure's own, or all of a tissue.

    A structure that is named itself doesn't count to its tissue; what no label names counts to label 0. None where a
    name is neither a structure's nor a tissue's: a network for such labels has outputs of its own.
    """
    names = [name for _, name in sorted(labels.items())]
    if not set(names) <= {"background", *TISSUES, *TISSUES.values()}:
        return None
    groups: list[list[int]] = [[] for _ in names]
    for number, name in LABELS.items():
        wanted = (name, TISSUES.get(name, "background"))
        label = next((names.index(word) for word in wanted if word in names), 0)
        groups[label].append(number)
    return groups


def output(*names: str) -> list[int]:
    """The numbers of a network's outputs that have these names."""
    return [number for number, name in LABELS.items() if name in names]


def labels_of_outputs(labels: Mapping[int, str]) -> list[int]:
    """For each of a network's outputs but the side, the label that it counts to; see outputs_of."""
    groups = outputs_of(labels) or [[]]
    return [next((label for label, group in enumerate(groups) if number in group), 0) for number in LABELS]


def out_channels(labels: Mapping[int, str]) -> int:
    """A network's outputs: all structures and the side, where labels are sums of structures; else the labels."""
    return SIDE_CHANNEL + 1 if outputs_of(labels) is not None else len(labels)


def names_and_colours() -> dict[int, tuple[str, tuple[int, int, int]]]:
    """{code: (FreeSurfer's name, colour)} of every label that a segmentation into structures may hold."""
    entries: dict[int, tuple[str, tuple[int, int, int]]] = {}
    for structure in STRUCTURES:
        if structure.has_sides:
            entries[structure.left] = (f"Left-{structure.title}", structure.colour)
            entries[structure.right] = (f"Right-{structure.title}", structure.colour)
        else:
            entries[structure.left] = (structure.title, structure.colour)
    code, title, colour = FOURTH_VENTRICLE
    entries[code] = (title, colour)
    return dict(sorted(entries.items()))


def names_without_sides() -> dict[int, str]:
    """{code: FreeSurfer's name without Left- or Right-}, with 0 for the background, what surrounds others first."""
    names = {code: name.removeprefix("Left-").removeprefix("Right-") for code, (name, _) in names_and_colours().items()}
    return {0: "background", AROUND_BRAIN: names[AROUND_BRAIN]} | names


def datalist(dataset_dir: str | Path | None) -> list[dict]:
    """[{"subject": ..., "label": path, "draw": 0}, ...] of a folder's segmentations in natural order; [] for None.

    Raises:
        DataError: no folder, no segmentation in it, or a file cut short.
    """
    if dataset_dir is None:
        return []
    paths = _files(dataset_dir)
    if not paths:
        raise MissingDataError(f"{dataset_dir} holds no aparc+aseg.mgz or .nii.gz. {HOW_TO_GET}")
    for path in paths:
        open_volume(path)
    root = Path(dataset_dir).expanduser()
    return [
        {"subject": path.relative_to(root).as_posix().split(".")[0], "label": str(path), "draw": 0} for path in paths
    ]


def verify(dataset_dir: str | Path) -> list[str]:
    """Reads every segmentation; returns every problem, each a sentence that names the file."""
    paths = _files(dataset_dir)
    codes = LabelCodes(tuple(MAP_CODES), may_be_empty=False)
    problems = [read_problem(path, codes) for path in paths]
    if not paths:
        return [f"{dataset_dir} holds no aparc+aseg.mgz or .nii.gz. {HOW_TO_GET}"]
    return [problem for problem in problems if problem]


def _files(dataset_dir: str | Path) -> list[Path]:
    folder = existing_folder(dataset_dir, HOW_TO_GET)
    endings = (".mgz", ".nii", ".nii.gz")
    return sorted(
        (
            path
            for path in folder.rglob("*aparc+aseg.*")
            if path.name.endswith(tuple(f"aparc+aseg{e}" for e in endings))
        ),
        key=natural_order,
    )
