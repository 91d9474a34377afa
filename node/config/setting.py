"""One setting of a node, as `node.config.settings` lists them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, for `--help` and the documentation; its default in the words of a TOML file."""

    name: str
    reason: str
    default: str | tuple[str, ...]
    parse: Callable[[object, Path], object]  # the value as given, the folder paths start from

    @property
    def flag(self) -> str:
        """On the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """In the environment."""
        return "HELIUM_" + self.name.upper()
