"""Tests that would pass without checking anything: skipped ones in CI, and asserts in loops that never run."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.skips import SHARED, may_skip

SKIPPED = """
import pytest

@pytest.mark.skipif(True, reason="{reason}")
def test_by_a_mark():
    pass

def test_by_a_call():
    pytest.skip("{reason}")

@pytest.mark.xfail(reason="known")
def test_known():
    raise AssertionError
"""


@pytest.mark.parametrize(
    ("reason", "environment", "has_shared", "may"),
    [
        ("needs a CUDA device", {"CI": "true"}, True, True),
        ("no Orthanc", {"CI": "true"}, True, False),
        ("no Orthanc", {"CI": "true"}, False, True),
        ("no Orthanc", {"CI": "false"}, True, True),
        ("no Orthanc", {}, True, True),
    ],
)
def test_who_may_skip(reason: str, environment: Mapping[str, str], has_shared: bool, may: bool, tmp_path: Path) -> None:
    shared = tmp_path if has_shared else tmp_path / "shared"
    assert may_skip(reason, environment, shared) == may


@pytest.mark.parametrize("reason", ["needs a CUDA device", "no Orthanc"])
def test_a_skip_fails_in_ci(reason: str, tmp_path: Path) -> None:
    (tmp_path / "test_marks.py").write_text(SKIPPED.format(reason=reason))
    (tmp_path / "test_whole.py").write_text(f"import pytest\npytest.importorskip('no_such', reason='{reason}')\n")
    call = [sys.executable, "-m", "pytest", "-p", "tests.skips", "-p", "no:cacheprovider", "-rs", "-c", os.devnull]
    result = subprocess.run(
        [*call, str(tmp_path)], cwd=ROOT, env=os.environ | {"CI": "true"}, capture_output=True, text=True, check=False
    )
    fails = SHARED.is_dir() and reason == "no Orthanc"
    assert result.returncode == (2 if fails else 0), result.stdout
    assert result.stdout.count("where all must run") == (1 if fails else 0)  # a file that can't be read ends the run
    assert reason in result.stdout


def checks(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return ast.unparse(node.func).split(".")[-1].startswith(("assert", "raises"))
    return isinstance(node, ast.Assert)


def is_never_empty(node: ast.expr) -> bool:
    """Whether an expression is a literal with members, or is made of one."""
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return bool(node.elts)
    if isinstance(node, ast.Dict):
        return bool(node.keys)
    if not isinstance(node, ast.Call):
        return False
    name = ast.unparse(node.func)
    if name == "range":
        return all(isinstance(argument, ast.Constant) for argument in node.args)
    if isinstance(node.func, ast.Attribute) and node.func.attr in ("items", "values", "keys"):
        return is_never_empty(node.func.value)
    return name in ("enumerate", "zip", "sorted", "reversed", "list") and any(map(is_never_empty, node.args))


def run_surely(node: ast.AST, inside: bool = False) -> Iterator[bool]:
    """For each check below a node, whether it stands outside all loops that may never run."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.Lambda)):
            continue
        if checks(child):
            yield not inside
        loops = isinstance(child, ast.While) or (isinstance(child, ast.For) and not is_never_empty(child.iter))
        yield from run_surely(child, inside or loops)


def unsure_tests(source: str) -> list[str]:
    """Names of tests whose checks all stand inside loops that may never run."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    tests = {node.name: list(run_surely(node)) for node in functions if node.name.startswith("test_")}
    return [name for name, found in tests.items() if found and not any(found)]


def test_loops_with_asserts_run() -> None:
    paths = sorted(Path(__file__).parent.rglob("test_*.py"))
    assert len(paths) > 50
    found = {path.name: names for path in paths if (names := unsure_tests(path.read_text(encoding="utf-8")))}
    assert found == {}


@pytest.mark.parametrize(
    ("body", "unsure"),
    [
        ("for x in find():\n        assert x", True),
        ("xs = find()\n    assert xs\n    for x in xs:\n        assert x", False),
        ("for x in (1, 2):\n        assert x", False),
        ("for n, x in enumerate([1, 2]):\n        assert x", False),
        ("for x in ():\n        assert x", True),
        ("while find():\n        torch.testing.assert_close(1, 1)", True),
        ("for x in (1, 2):\n        for y in find():\n            assert x", True),
        ("check(find())", False),  # the function that it calls may check
    ],
)
def test_what_is_found(body: str, unsure: bool) -> None:
    assert unsure_tests(f"def test_it():\n    {body}\n") == (["test_it"] if unsure else [])
