"""What benchmarks print: progress on standard error, results on standard output."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def progress(text: str) -> None:
    """Show how far a long run is, where it does not disturb the result."""
    print(text, file=sys.stderr, flush=True)


def report(
    rows: Iterable[Mapping[str, Any]], line: Callable[[Mapping[str, Any]], str], *, as_json: bool
) -> None:
    """Print one JSON document of all rows at the end, or the `line` of each as soon as it is."""
    documents = []
    for row in rows:
        documents.append(row)
        if not as_json:
            print(line(row), flush=True)
    if as_json:
        print(json.dumps(documents))


def describe_parts(shares: Mapping[str, float]) -> str:
    """Return the shares of a profile in words; "" without any."""
    words = ", ".join(f"{part} {share:.0%}" for part, share in shares.items())
    return f"\n    by samples: {words}" if words else ""
