"""In CI a test must not pass by being skipped: where the data of other people is there, only a GPU may be missing.

tests/conftest.py imports the two hooks.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).parents[2] / "shared"
NO_CUDA = "needs a CUDA device"


def may_skip(reason: str, environment: Mapping[str, str] = os.environ, shared: Path = SHARED) -> bool:
    """Whether a test may be skipped for a reason: anywhere but in CI, where ../shared is missing, or without a GPU."""
    return environment.get("CI") != "true" or not shared.is_dir() or NO_CUDA in reason


def _fail(report: Any) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if not may_skip(reason):
            report.outcome, report.longrepr = "failed", f"A test was skipped in CI, where all must run. {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Generator[None, Any, Any]:
    """Of a test that is skipped by a mark or a call."""
    report = yield
    _fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Of a file that is skipped as a whole, as by pytest.importorskip."""
    report = yield
    _fail(report)
    return report
