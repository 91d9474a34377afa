"""The schema files, and how references from one into another are resolved."""

import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

# The address of all schemas. It is never fetched: `.invalid` names no host (RFC 2606), and every
# reference is resolved from the files here.
BASE = "https://schemas.helium.invalid/2/"

# Definitions that other schemas refer to; it describes no document of its own.
COMMON = "common"


@functools.cache
def names() -> tuple[str, ...]:
    """Return the names of the documents that have a schema, sorted."""
    return tuple(name for name in sorted(_files()) if name != COMMON)


def load(name: str) -> dict[str, Any]:
    """Return a new copy of the JSON Schema document `name`. Raises `KeyError` if there is none."""
    schema: dict[str, Any] = json.loads(_files()[name])
    return schema


def registry() -> list[tuple[str, Any]]:
    """Return every schema with its absolute address, in the form that validators accept."""
    return [(f"{BASE}{name}.json", load(name)) for name in _files()]


def at_location(location: str) -> dict[str, Any]:
    """Return the schema object that contains the keyword at the absolute `location`."""
    address, _, pointer = location.partition("#")
    node = _parsed(address.removeprefix(BASE).removesuffix(".json"))
    for step in pointer.split("/")[1:-1]:
        name = step.replace("~1", "/").replace("~0", "~")
        node = node[int(name) if isinstance(node, list) else name]
    assert isinstance(node, dict)  # noqa: S101  # a keyword is a member of an object
    return node


def title(schema: Mapping[str, Any], address: str) -> str:
    """Return the title of a schema, which says what its value must be ("a peer id").

    A schema without a title refers to another by `$ref`, relative to `address`, its own.
    """
    described = schema
    while "title" not in described:
        reference = str(described["$ref"])
        is_local = reference[0] == "#"
        target = address.partition("#")[0] + reference if is_local else BASE + reference
        described = at_location(target + ("/" if "#" in target else "#/"))
    return str(described["title"])


@functools.cache
def _files() -> dict[str, str]:
    folder = resources.files(__package__)
    return {
        entry.name.removesuffix(".json"): entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".json")
    }


@functools.cache
def _parsed(name: str) -> Any:
    return load(name)
