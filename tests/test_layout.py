"""Folders stay small: a reader sees a package's whole list of modules at once."""

from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("node", "protocol", "executor", "schemas")
MAX_MODULES = 10
MAX_NODE_ENTRIES = 18


def test_no_folder_has_too_many_modules() -> None:
    counts = Counter(
        str(path.parent.relative_to(ROOT))
        for package in PRODUCT
        for path in (ROOT / package).rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    )
    assert counts["node"] > 0
    assert {folder: n for folder, n in counts.items() if n > MAX_MODULES} == {}


def test_node_has_few_entries() -> None:
    entries = [path for path in (ROOT / "node").iterdir() if path.name != "__pycache__"]
    assert len(entries) <= MAX_NODE_ENTRIES
