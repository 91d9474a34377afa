"""The schema files, and how one points into another."""

import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

# Never fetched: `.invalid` names nothing (RFC 2606), and every reference is answered from here.
BASE = "https://schemas.helium.invalid/1/"
COMMON = "common"  # definitions that others refer to, no document of its own


@functools.cache
def names() -> tuple[str, ...]:
    """Names of the documents that have a schema, sorted."""
    return tuple(name for name in sorted(_files()) if name != COMMON)


def load(name: str) -> dict[str, Any]:
    """The JSON Schema document `name`, the caller's own copy; `KeyError` if there is none."""
    loaded: dict[str, Any] = json.loads(_files()[name])
    return loaded


def registry() -> list[tuple[str, Any]]:
    """Every schema by its absolute address, as the validators take them."""
    return [(f"{BASE}{name}.json", load(name)) for name in _files()]


def at_location(location: str) -> dict[str, Any]:
    """The schema object that holds the keyword at the absolute `location`."""
    address, _, pointer = location.partition("#")
    node = _parsed(address.removeprefix(BASE).removesuffix(".json"))
    for step in pointer.split("/")[1:-1]:
        name = step.replace("~1", "/").replace("~0", "~")
        node = node[int(name) if isinstance(node, list) else name]
    assert isinstance(node, dict)  # noqa: S101 a keyword stands in an object
    return node


def title(schema: Mapping[str, Any], holder: str) -> str:
    """What a value of `schema` must be; through `$ref`, relative to the address `holder`."""
    found = schema
    while "title" not in found:
        reference = str(found["$ref"])
        target = holder.partition("#")[0] + reference if reference[0] == "#" else BASE + reference
        found = at_location(target + ("/" if "#" in target else "#/"))
    return str(found["title"])


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
