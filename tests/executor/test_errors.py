"""What a failure tells others: readable, bounded, and nothing of where things lie."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import schemas
from executor.errors import DETAIL_CHARACTERS, printable_detail
from tests.schemas.examples import documents


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ("ValueError: no beat", "ValueError: no beat"),
        ("two\nlines\tand  more ", "two lines and more"),
        ("\x1b[31mred\x9b0m", "[31mred 0m"),
        ("\u202eright to left\ufeff", "right to left"),
        ("half \ud800 a character \ufdd0", "half a character"),
        ("réveille 静かなピアノ", "réveille 静かなピアノ"),
        ("no /home/ann/models/a/config.json here", "no config.json here"),
        ("name='/tmp/x-input-0'>: bad", "name='x-input-0'>: bad"),
        ("and/or 3/4 https://example.org/a/b", "and/or 3/4 https://example.org/a/b"),
        ("x" * 300, "x" * 256),
        ("x" * 255 + " y", "x" * 255),
        ("", ""),
    ],
)
def test_printable_detail(detail: str, expected: str) -> None:
    assert printable_detail(detail) == expected


@given(st.text(st.characters(exclude_categories=())))
def test_printable_detail_fits_into_a_reveal(detail: str) -> None:
    text = printable_detail(f"x{detail}")
    assert 1 <= len(text) <= DETAIL_CHARACTERS
    reveal = documents()["reveal"]
    schemas.check("reveal", {**reveal, "trace": {**reveal["trace"], "detail": text}})
    assert printable_detail(text) == text
    text.encode()  # no half of a character
