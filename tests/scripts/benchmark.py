"""Runs a benchmark as `scripts/bench` does."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def rows_of(*command: str) -> list[dict[str, Any]]:
    """What a benchmark prints with --json; the first of `command` is its name."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", f"scripts.bench_tool.{command[0]}", *command[1:], "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows
