"""Strategies for parser inputs: documents from the JSON Schemas, and mutations of valid documents.

Random bytes rarely pass the first check of a parser. A mutation changes a valid document in one to
four places, so it reaches the checks behind.
"""

import copy
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

import schemas
from schemas.documents import BASE, registry

# Values at the limits of integers, floats, text and nesting.
EDGE_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 0.5, -0.0, 1e-320, 1e15, 1e16, 1e308, float("nan")),
    *(float("inf"), 2**31, 2**32 - 1, 2**32, 2**53 - 1, 2**53, -(2**53), 2**63, 2**64, 10**400),
    *("", " ", "0", "null", "\x00", "\n", "é", "\ud800", "\udfff", "\ufffe", "\U0001fffe", "../x"),
    *("a" * 64, "f" * 63, "A" * 5_000, "\x7f", "cpu", "task", "12D3KooW" + "1" * 44, "-" * 86),
    *([], {}, [[]], [{}], {"": None}, [None] * 40, {"a": {"b": {"c": []}}}, [[[[[[[[]]]]]]]]),
)
# Pieces of JSON, UTF-8 and length prefixes that parsers handle specially.
TOKENS = (
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u0000", b"\\ud800", b"\\u", b"null"),
    *(b"NaN", b"-Infinity", b"1e999", b"-0", b"0.0", b"1E400", b"9" * 50, b"9" * 5_000, b"[" * 40),
    *(b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\n"),
    *(b"\xff" * 4, b"\x00" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80", b" ", b"//"),
)

edge_values = st.sampled_from(EDGE_VALUES)
json_values: st.SearchStrategy[Any] = edge_values | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=8,
)
noise = st.binary(max_size=300) | st.lists(st.sampled_from(TOKENS), max_size=30).map(b"".join)


@st.composite
def encoded(draw: st.DrawFn, documents: st.SearchStrategy[Any]) -> bytes:
    """Encode a drawn document as JSON in one of several spellings."""
    compact = draw(st.booleans())
    text = json.dumps(
        draw(documents),
        ensure_ascii=draw(st.booleans()),
        indent=None if compact else 1,
        sort_keys=draw(st.booleans()),
        separators=(",", ":") if compact else None,
    )
    return text.encode("utf-8", "surrogatepass")


@st.composite
def mutated(draw: st.DrawFn, document: Any, max_changes: int = 4) -> Any:
    """Draw a copy of a JSON value with up to `max_changes` places changed."""
    root = [copy.deepcopy(document)]  # in a list, so that the value itself is a place too
    for _ in range(draw(st.integers(0, max_changes))):
        places = list(_places(root))
        if not places:
            break
        container, key = draw(st.sampled_from(places))
        _change(draw, container, key, places)
    return root[0] if root else None


@st.composite
def edited(draw: st.DrawFn, content: bytes, max_edits: int = 6) -> bytes:
    """Draw a copy of some bytes with up to `max_edits` places changed."""
    edited_bytes = bytearray(content)
    for _ in range(draw(st.integers(1, max_edits))):
        at = draw(st.integers(0, len(edited_bytes)))
        end = min(len(edited_bytes), at + draw(st.sampled_from((1, 2, 4, 16, 64, 1000))))
        match draw(st.sampled_from(("delete", "token", "repeat", "byte", "move", "truncate"))):
            case "delete":
                del edited_bytes[at:end]
            case "token":
                edited_bytes[at:at] = draw(st.sampled_from(TOKENS))
            case "repeat":
                edited_bytes[at:at] = edited_bytes[at:end]
            case "byte" if at < len(edited_bytes):
                edited_bytes[at] = draw(st.integers(0, 255))
            case "move":
                target = draw(st.integers(0, len(edited_bytes)))
                edited_bytes[target:target] = edited_bytes[at:end]
            case "truncate":
                del edited_bytes[at:]
    return bytes(edited_bytes)


def near(documents: Sequence[Any]) -> st.SearchStrategy[bytes]:
    """Draw JSON bytes near one of these documents, and sometimes noise."""
    trees = st.sampled_from(documents).flatmap(mutated)
    texts = encoded(trees)
    return st.one_of(texts, texts, st.sampled_from(documents).map(_dump).flatmap(edited), noise)


@functools.cache
def from_schema(name: str) -> st.SearchStrategy[Any]:
    """Draw documents that satisfy a schema, but for rules that it states with `not`."""
    address = f"{BASE}{name}.json"
    return _of_schema(schemas.load(name), address)


def _of_schema(schema: Mapping[str, Any], address: str) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        return st.deferred(lambda: _of_reference(schema["$ref"], address))
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    for keyword in ("oneOf", "anyOf"):
        if keyword in schema:
            rest = {key: value for key, value in schema.items() if key != keyword}
            return st.one_of(
                [_of_schema({**rest, **option}, address) for option in schema[keyword]]
            )
    kinds = schema.get("type", "string" if "pattern" in schema else "object")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    return st.one_of([_of_type(kind, schema, address) for kind in kinds])


def _of_type(kind: str, schema: Mapping[str, Any], address: str) -> st.SearchStrategy[Any]:
    match kind:
        case "object":
            return _of_object(schema, address)
        case "array":
            minimum, maximum = schema.get("minItems", 0), schema.get("maxItems", 4)
            items = _of_schema(schema["items"], address)
            return st.lists(items, min_size=minimum, max_size=max(minimum, min(maximum, 4)))
        case "string":
            return _of_string(schema)
        case "integer":
            return st.integers(schema.get("minimum", 0), schema.get("maximum", 2**53 - 1))
        case "number":
            minimum = schema.get("minimum", schema.get("exclusiveMinimum", 0))
            excluded = "exclusiveMinimum" in schema
            return st.floats(minimum, schema.get("maximum", 1e9), exclude_min=excluded)
        case "boolean":
            return st.booleans()
        case _:
            return st.none()


def _of_string(schema: Mapping[str, Any]) -> st.SearchStrategy[str]:
    minimum, maximum = schema.get("minLength", 0), schema.get("maxLength", 100)
    if "pattern" not in schema:
        return st.text(st.characters(exclude_categories=["Cs"]), min_size=minimum, max_size=maximum)
    strings = st.from_regex(schema["pattern"].removesuffix("$") + r"\Z")
    return strings.filter(lambda text: minimum <= len(text) <= maximum)


def _of_object(schema: Mapping[str, Any], address: str) -> st.SearchStrategy[Any]:
    properties = {
        name: _of_schema(member, address) for name, member in schema.get("properties", {}).items()
    }
    required = {name: properties[name] for name in schema.get("required", ())}
    optional = {name: member for name, member in properties.items() if name not in required}
    members = st.fixed_dictionaries(required, optional=optional)
    additional = schema.get("additionalProperties", True)
    if additional is False:
        return members
    names = _of_schema(schema.get("propertyNames", {"type": "string"}), address)
    values = json_values if additional is True else _of_schema(additional, address)
    minimum = schema.get("minProperties", 0)
    additions = st.dictionaries(names, values, min_size=minimum, max_size=max(minimum, 2))
    return st.builds(lambda first, second: {**first, **second}, additions, members)


@functools.cache
def _of_reference(reference: str, address: str) -> st.SearchStrategy[Any]:
    file, _, pointer = reference.partition("#")
    target = BASE + file if file else address
    schema = dict(registry())[target]
    for step in pointer.split("/")[1:]:
        schema = schema[step]
    return _of_schema(schema, target)


def _dump(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Return every container and key in a JSON value, at any depth."""
    containers = [value]
    while containers:
        container = containers.pop()
        keys = list(container) if isinstance(container, dict) else range(len(container))
        for key in keys:
            yield container, key
            if isinstance(container[key], dict | list):
                containers.append(container[key])


def _change(draw: st.DrawFn, container: Any, key: Any, places: list[tuple[Any, Any]]) -> None:
    value = container[key]
    match draw(st.sampled_from(("delete", "repeat", "rename", "swap", "wrap", "near", "replace"))):
        case "delete":
            del container[key]
        case "repeat" if isinstance(container, list):
            container.insert(key, copy.deepcopy(value))
        case "rename" if isinstance(container, dict):
            name = draw(st.sampled_from((f"{key}x", key[:-1], "", "type", "seed")))
            container[name] = container.pop(key)
        case "swap":  # take the value of another place
            source, place = draw(st.sampled_from(places))
            if place in (source if isinstance(source, dict) else range(len(source))):
                container[key] = copy.deepcopy(source[place])
        case "wrap":
            container[key] = draw(st.sampled_from(([value], {str(key): value})))
        case "near":
            container[key] = draw(_near_value(value))
        case _:
            container[key] = copy.deepcopy(draw(json_values))


def _near_value(value: Any) -> st.SearchStrategy[Any]:
    """Draw a value of the same type and close to this one."""
    match value:
        case bool():
            return st.just(not value)
        case int() | float():
            fractions = (value + 0.5, value * 1.0) if abs(value) < 2**64 else ()
            return st.sampled_from((value + 1, value - 1, -value, value * 2, *fractions))
        case str():
            positions = st.integers(0, len(value))
            pieces = st.sampled_from(("", "0", "a", "Z", "_", "é", value))
            return st.builds(
                lambda at, piece, cut: value[:at] + piece + value[at + cut :],
                positions,
                pieces,
                st.integers(0, 2),
            )
        case list():
            return st.sampled_from((value + value, value[::-1], value[1:], value[:50] * 30))
        case dict():
            added = st.sampled_from(("x", "seed", "network"))
            return added.map(lambda name: dict(reversed(value.items())) | {name: None})
    return edge_values
