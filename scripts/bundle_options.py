#!/usr/bin/env python
"""Writes the option tables of docs/bundles.md from each bundle's configs/options.json and its config files.

    python scripts/bundle_options.py

A table lies between <!-- options BUNDLE --> and <!-- end of options -->.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from custom.commands.options import table  # noqa: E402
from custom.running.bundles import find_bundle  # noqa: E402

PAGE = ROOT / "docs" / "bundles.md"
_TABLE = re.compile(r"(<!-- options (\w+) -->\n).*?(<!-- end of options -->)", re.DOTALL)


def with_tables(page: str) -> str:
    """The page with new tables."""
    return _TABLE.sub(lambda match: f"{match[1]}\n{table(find_bundle(match[2]))}\n\n{match[3]}", page)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
