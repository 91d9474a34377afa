"""The mutants: each a small change of one file that breaks one rule of the specification."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LIST = Path(__file__).with_name("mutants.toml")


class Stale(ValueError):
    """The text that a mutant replaces does not stand exactly once in its file."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A rule broken: `old`, which stands once in `file`, becomes `new`."""

    name: str
    rule: str
    file: str
    old: str
    new: str
    first: tuple[str, ...] = ()  # test files to be tried before its own module's

    def applied(self, text: str) -> str:
        """Return the file's text with the change. Raises Stale."""
        if (found := text.count(self.old)) != 1:
            raise Stale(f"{self.name}: its text stands {found} times in {self.file}")
        return text.replace(self.old, self.new)

    def nearest(self, root: Path) -> tuple[str, ...]:
        """Return the test files that are likeliest to notice: its own module's at the end."""
        package, _, name = self.file.partition("/")
        own = f"tests/{package}/test_{Path(name).stem}.py"
        return tuple(dict.fromkeys([*self.first, *([own] if (root / own).is_file() else [])]))


def planted() -> tuple[Mutant, ...]:
    """Return all mutants, in the order of the list."""
    entries = tomllib.loads(_LIST.read_text("utf-8"))["mutant"]
    return tuple(Mutant(**{**entry, "first": tuple(entry.get("first", ()))}) for entry in entries)


def stale(mutants: Sequence[Mutant], root: Path = ROOT) -> list[str]:
    """Return what keeps mutants from being planted, a line for each of them."""
    lines = []
    for mutant in mutants:
        try:
            mutant.applied((root / mutant.file).read_text("utf-8"))
        except (Stale, OSError) as error:
            lines.append(str(error))
    return lines
