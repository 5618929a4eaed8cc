"""The pages: every link leads somewhere, and docs/write-a-bundle.md works as it stands."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

from custom.commands.options import table
from custom.running.bundles import find_bundle, read_metadata
from custom.samples import msd as msd_sample

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bundles/*/docs/*.md")])
RESEARCH_USE = "Research use only, not a medical device"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def problems_of_links(page: Path) -> list[str]:
    problems = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if re.match(r"\w+:", link):
            continue
        if not target.exists():
            problems.append(f"{page.name}: {link}: no such file")
        elif anchor and anchor not in anchors(target):
            problems.append(f"{page.name}: {link}: no such heading")
    return problems


def test_problems_of_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A title, with `code`\n[a](page.md#a-title-with-code) [b](#none) [c](gone.md) [d](https://x.org)\n"
    )
    assert problems_of_links(page) == ["page.md: #none: no such heading", "page.md: gone.md: no such file"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert problems_of_links(page) == []


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "SECURITY.md", *ROOT.glob("bundles/*/docs/README.md")])
def test_research_use_only_is_near_the_top(page: Path) -> None:
    assert RESEARCH_USE in page.read_text(encoding="utf-8")[:800]


def test_pre_commit_has_the_version_of_the_constraints() -> None:
    versions = set(re.findall(r"\[(ruff==[\d.]+)\]", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")))
    assert len(versions) == 1
    assert versions <= set((ROOT / "constraints.txt").read_text(encoding="utf-8").split())


OF_OTHERS = {  # messages of pip, the shell and torch
    "No matching distribution found for torch",
    "brainmri: command not found",
    "DataLoader worker is killed by signal: Bus error",
}


def texts_of(source: str) -> list[str]:
    """Every text in a program; a dot stands for each value of an f-string."""
    texts = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            texts.append("".join(part.value if isinstance(part, ast.Constant) else "." for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
    return texts


def test_texts_of_a_program() -> None:
    assert "a . b" in texts_of('x = f"a {y} b"')


def test_the_messages_of_the_page_are_those_of_the_program() -> None:
    texts = [text for path in ROOT.glob("custom/**/*.py") for text in texts_of(path.read_text(encoding="utf-8"))]
    page = (ROOT / "docs" / "problems.md").read_text(encoding="utf-8")
    messages = set(re.findall(r"^\| `([^`]+)` \|", page, flags=re.MULTILINE))
    assert len(messages) > 30
    patterns = {
        message: re.compile(".*".join(map(re.escape, message.split("...")))) for message in messages - OF_OTHERS
    }
    assert [message for message, pattern in patterns.items() if not any(map(pattern.search, texts))] == []


def write_the_pages_bundle(folder: Path) -> list[str]:
    """Writes every file of docs/write-a-bundle.md, and returns the page's commands of MONAI."""
    page = (ROOT / "docs" / "write-a-bundle.md").read_text(encoding="utf-8")
    commands = []
    blocks = re.findall(r"`(my_mri_segmentation/configs/[\w/]+\.json)`|```(json|bash)\n(.*?)```", page, flags=re.DOTALL)
    name = ""
    for path, language, text in blocks:
        name = path or name
        if language == "json":
            json.loads(text)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        elif language == "bash":
            commands += [line for line in text.splitlines() if line.startswith("python -m monai.bundle")]
    return commands


def test_the_pages_bundle_explains_its_options_and_declares_what_the_server_reads(tmp_path: Path) -> None:
    write_the_pages_bundle(tmp_path)
    configs = tmp_path / "my_mri_segmentation" / "configs"
    explained = set(json.loads((configs / "options.json").read_text()))
    rows = re.findall(r"^\| `(\w+)` \|", table(configs.parent), flags=re.MULTILINE)
    assert set(rows) == explained
    metadata, known = read_metadata(configs.parent), read_metadata(find_bundle("iseg"))
    assert [key for key in ("kind", "spatial_dims") if key not in metadata] == []
    assert set(metadata["own_labels"]) == set(known["own_labels"])
    keys = list(json.loads((configs / "inference.json").read_text()))
    assert keys.index("dataloader") < keys.index("network_def") < keys.index("inferer")  # as in every bundle


@pytest.mark.slow
def test_write_a_bundle_as_the_page_says(tmp_path: Path) -> None:
    """Every file of the page is written, and every command of MONAI runs, on a smaller sample."""
    msd_sample.write(tmp_path / "data" / "msd", spacing=4, labelled=5)
    commands = write_the_pages_bundle(tmp_path)
    assert len(commands) == 6
    for command in commands:
        short = command.replace("python", f"'{sys.executable}'", 1).replace("--max_epochs 2", "--max_epochs 1")
        done = subprocess.run(["bash", "-c", short], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
    run = tmp_path / "runs" / "my_mri_segmentation"
    assert (run / "model.pt").is_file()
    labels = ["edema", "non-enhancing tumor", "enhancing tumour"]
    (scores,) = run.glob("**/scores.csv")  # the last command, a new training, moved the earlier run's files
    assert pandas.read_csv(scores)["label"].unique().tolist() == labels
    assert len(list(run.glob("**/*_seg.nii.gz"))) == 2  # the sample's unlabelled patients
