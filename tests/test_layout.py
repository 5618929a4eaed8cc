"""Who may import whom in `custom`: downwards only, without circles."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

import custom

PACKAGE = Path(custom.__file__).parent
LAYERS = (  # from the bottom up; a folder imports from lower lines only
    {"errors"},
    {"files", "locks"},
    {"networks", "losses"},
    {"checkpoints", "reading"},
    {"transforms", "inferers", "metrics"},
    {"datasets"},
    {"handlers", "samples"},
    {"running"},
    {"planning", "reports"},
    {"baselines", "serving"},
    {"commands"},
    {"cli"},
)
LEVELS = {folder: level for level, folders in enumerate(LAYERS) for folder in folders}
LOOSE = {"__init__", "cli", "errors", "files", "locks"}


def imports(root: Path) -> dict[str, set[str]]:
    """For each module below root/custom the modules of `custom` that it imports, in functions too."""
    paths = {_dotted(path.relative_to(root)): path for path in sorted((root / "custom").rglob("*.py"))}
    graph: dict[str, set[str]] = {}
    for module, path in paths.items():
        names = []
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names += [f"{node.module}.{alias.name}" for alias in node.names]
        graph[module] = {_module_of(name, paths) for name in names if name.split(".")[0] == "custom"} - {module}
    graph["custom"] = set()  # its functions for bundle JSON import what they call; everyone may read its constants
    return graph


def _dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _module_of(name: str, paths: dict[str, Path]) -> str:
    while name not in paths:
        name = name.rpartition(".")[0]
    return name


def _folder(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def violations(graph: dict[str, set[str]]) -> list[str]:
    """Imports against LAYERS, and a circle of modules where there is one, a sentence each."""
    found = [
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in sorted(others)
        if _folder(module) != _folder(other) and "custom" not in (module, other)
        if LEVELS[_folder(module)] <= LEVELS[_folder(other)]
    ]
    # A package's __init__ re-exports its modules, and these import each other: no circle if the modules have none.
    packages = {module for module in graph if any(other.startswith(f"{module}.") for other in graph)}
    modules = {module: others - packages for module, others in graph.items() if module not in packages}
    try:
        graphlib.TopologicalSorter(modules).prepare()
    except graphlib.CycleError as error:
        found.append(f"circle: {' -> '.join(error.args[1])}")
    return found


def test_every_folder_has_a_level() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert folders | (LOOSE - {"__init__"}) == set(LEVELS)
    assert {path.stem for path in PACKAGE.glob("*.py")} == LOOSE


def test_imports_go_downwards_without_circles() -> None:
    assert violations(imports(PACKAGE.parent)) == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"metrics/dice.py": "", "handlers/a.py": "from custom.metrics import dice"}, []),
        (
            {"metrics/dice.py": "from custom.handlers import a", "handlers/a.py": ""},
            ["custom.metrics.dice imports custom.handlers.a"],
        ),
        (
            {"metrics/dice.py": "def f():\n    import custom.inferers.a", "inferers/a.py": ""},
            ["custom.metrics.dice imports custom.inferers.a"],
        ),
        (
            {"networks/a.py": "import custom.networks.b", "networks/b.py": "from custom.networks.a import x"},
            ["circle: custom.networks.a -> custom.networks.b -> custom.networks.a"],
        ),
    ],
)
def test_the_test_finds_what_it_looks_for(files: dict[str, str], expected: list[str], tmp_path: Path) -> None:
    for name, text in files.items():
        path = tmp_path / "custom" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for package in (path.parent, tmp_path / "custom"):
            (package / "__init__.py").touch()
        path.write_text(text, encoding="utf-8")
    found = violations(imports(tmp_path))
    assert [set(sentence.replace("circle: ", "").split(" -> ")) for sentence in found] == [
        set(sentence.replace("circle: ", "").split(" -> ")) for sentence in expected
    ]


def test_no_file_is_longer_than_300_lines() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert [f"{path}: {n}" for path, n in lengths.items() if n > 300] == []
