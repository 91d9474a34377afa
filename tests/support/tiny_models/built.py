"""The tiny models as a models folder, built once per test run."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def built_models(factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all tiny models, `tiny/<class>` each. Nobody may change it.

    The processes of pytest-xdist share it: the first one that needs it builds it, in a process of
    its own that takes about fifteen seconds, and the others wait for its lock.
    """
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny-models"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = folder.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            command = [sys.executable, "-m", "scripts.build_tiny_models", str(unfinished)]
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            unfinished.rename(folder)
    return folder
