"""Build tiny models with random weights, one folder per class of model."""

import argparse
import importlib
import os
import pkgutil

os.environ["HF_HUB_OFFLINE"] = "1"

from scripts import arguments, one_line
from tests.support import tiny_models

SHARED = ("built", "parts", "weights")


def main() -> None:
    known = [m.name for m in pkgutil.iter_modules(tiny_models.__path__) if m.name not in SHARED]
    parser = arguments.Parser("scripts/build_tiny_models", own_help=False)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("words", metavar="[CLASS...] FOLDER", nargs="*")
    options = parser.parse_args()
    if options.list:
        print("\n".join(known))
        return
    words = options.words or parser.error("name a FOLDER")
    names = words[:-1]
    for name in names:
        if name not in known:
            parser.error(f"CLASS: {name!r} is none of {', '.join(known)}")
    try:
        root = arguments.new_folder(words[-1])
    except argparse.ArgumentTypeError as error:
        parser.error(f"FOLDER: {error}")
    for name in names or known:
        folder = root / "tiny" / name
        folder.mkdir(parents=True, exist_ok=True)
        importlib.import_module(f"tests.support.tiny_models.{name}").build(folder)
        print(folder)


if __name__ == "__main__":
    one_line.run(main)
