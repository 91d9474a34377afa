"""Build tiny models with random weights, one folder per class of model."""

import importlib
import os
import pkgutil
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

from scripts import one_line
from tests.support import tiny_models

SHARED = ("built", "parts", "weights")


def main() -> None:
    known = [m.name for m in pkgutil.iter_modules(tiny_models.__path__) if m.name not in SHARED]
    if sys.argv[1:] == ["--list"]:
        print("\n".join(known))
        return
    if len(sys.argv) < 2 or set(sys.argv[1:-1]) - set(known):
        sys.exit(f"build_tiny_models: FOLDER, or [CLASS...] FOLDER; classes: {', '.join(known)}")
    for name in sys.argv[1:-1] or known:
        folder = Path(sys.argv[-1]) / "tiny" / name
        folder.mkdir(parents=True, exist_ok=True)
        importlib.import_module(f"tests.support.tiny_models.{name}").build(folder)
        print(folder)


if __name__ == "__main__":
    one_line.run(main)
