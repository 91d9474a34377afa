"""A task's arguments as the libraries want them: each number of the type that its schema declares.

JSON has one kind of number. Canonical JSON writes 2.0 as 2, and parsing gives an `int`, which
transformers refuses as a temperature. A model's own settings come from JSON files too.
"""

import functools
import struct
from collections.abc import Mapping
from typing import Any

from protocol.wire.encoding import tagged_hash
from schemas import load

# Python's types of the schemas' scalar types.
_PYTHON_TYPES: Mapping[str, type] = {"number": float, "integer": int, "boolean": bool}
# Settings of transformers that are real numbers, whole ones too, besides those of the schemas.
_REAL_SETTINGS = ("repetition_penalty", "encoder_repetition_penalty")


def config_members(kind: str, args: Mapping[str, object]) -> dict[str, Any]:
    """Return the members of `generation_config` that a task sets, so none that is null.

    Each has the Python type that the schema of the task's kind declares.
    """
    config = args.get("generation_config")
    members: Mapping[str, Any] = config if isinstance(config, Mapping) else {}
    types = _types(kind)
    return {name: types[name](value) for name, value in members.items() if value is not None}


def sequence_seeds(seed: int, count: int) -> list[int]:
    """Return the seeds of `count` sequences: the task's own, then derived ones (section 8)."""
    hashes = (tagged_hash("sequence", struct.pack(">QI", seed, i)) for i in range(1, count))
    return [seed, *(int.from_bytes(digest[:4], "big") for digest in hashes)]


def use_floats(settings: Any) -> None:
    """Make the real numbers among a model's own generation settings floats, nested ones too.

    `settings` is a generation configuration or a part of one; anything else is left as it is.
    """
    members = settings if isinstance(settings, dict) else getattr(settings, "__dict__", {})
    for name, value in members.items():
        if name in _real_numbers() and type(value) is int:
            members[name] = float(value)
        elif isinstance(value, dict):
            use_floats(value)


@functools.cache
def _types(kind: str) -> dict[str, type]:
    """Return the Python type of each member of `generation_config` of a task kind."""
    properties = load(kind)["properties"]["generation_config"]["properties"]
    return {name: _python_type(schema) for name, schema in properties.items()}


@functools.cache
def _real_numbers() -> frozenset[str]:
    """Return the names of generation settings that are real numbers."""
    names = [name for name, type_ in _types("text-to-music").items() if type_ is float]
    return frozenset((*names, *_REAL_SETTINGS))


def _python_type(schema: Mapping[str, Any]) -> type:
    if "enum" in schema:
        return next(type(value) for value in schema["enum"] if value is not None)
    return next(_PYTHON_TYPES[name] for name in schema["type"] if name != "null")
