"""One setting, defined once, as a dataclass field with its default, help, unit and range.

The flags of `helium run`, the environment variables, the keys of the TOML file and
`docs/configuration.md` are all made from these definitions.
"""

from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from node.config import parsers

Parser = Callable[[object, Path], object]


@dataclass(frozen=True, slots=True)
class Setting:
    """The definition of one setting.

    `parse` takes the value as written and the folder that relative paths start from. `formerly` is
    the name under which earlier versions had it as a flag.
    """

    name: str
    default: object
    help: str
    parse: Parser
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    formerly: str = ""

    @property
    def flag(self) -> str:
        """The flag on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The variable in the environment."""
        return "HELIUM_" + self.name.upper()

    @property
    def is_list(self) -> bool:
        """True if the setting holds any number of values."""
        return isinstance(self.default, tuple)

    @property
    def default_text(self) -> str:
        """The default as an owner would write it, empty for an empty list."""
        values = self.default if isinstance(self.default, tuple) else (self.default,)
        return ", ".join(
            f"{value:g}" if isinstance(value, float) else str(value) for value in values
        )


def setting(default: Any, text: str, parse: Parser) -> Any:
    """Return a dataclass field that defines a setting; `text` is its help."""
    return field(default=default, metadata={"help": text, "parse": parse})


def whole_number(
    default: int, minimum: int, maximum: int, unit: str, text: str, formerly: str = ""
) -> Any:
    """Return a dataclass field that defines a whole number from `minimum` to `maximum`."""
    parse = parsers.whole_number(minimum, maximum)
    return _ranged(default, minimum, maximum, unit, text, formerly, parse)


def number(
    default: float, minimum: float, maximum: float, unit: str, text: str, formerly: str = ""
) -> Any:
    """Return a dataclass field that defines a number from `minimum` to `maximum`."""
    parse = parsers.number(minimum, maximum)
    return _ranged(default, minimum, maximum, unit, text, formerly, parse)


def _ranged(
    default: float,
    minimum: float,
    maximum: float,
    unit: str,
    text: str,
    formerly: str,
    parse: Parser,
) -> Any:
    # The keys are the names of the fields of `Setting`.
    metadata = {"help": text, "parse": parse, "unit": unit, "formerly": formerly}
    return field(default=default, metadata={**metadata, "minimum": minimum, "maximum": maximum})


def settings_of(group: type) -> tuple[Setting, ...]:
    """Return the settings that a dataclass defines, in its order."""
    return tuple(_setting_of(definition) for definition in fields(group) if definition.metadata)


def _setting_of(definition: Field[Any]) -> Setting:
    return Setting(definition.name, definition.default, **definition.metadata)
