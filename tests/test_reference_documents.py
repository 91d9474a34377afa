"""The table of docs/reference-documents.md names tests that exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
TABLE = TESTS.parent / "docs" / "reference-documents.md"


def test_every_test_that_the_table_names_exists() -> None:
    text = TABLE.read_text()
    named = set(re.findall(r"::(test_\w+)", text))
    files = set(re.findall(r"`(?:tests/\w+/)?(test_\w+\.py)", text))
    assert len(named) > 20
    written = list(TESTS.rglob("test_*.py"))  # several have one name
    assert files <= {path.name for path in written}
    text = "\n".join(path.read_text() for path in written)
    existing = set(re.findall(r"def (test_\w+)\(", text))
    assert named <= existing, named - existing
