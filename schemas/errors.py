"""Turns a validator's error into one sentence: the field, the value and what is allowed.

The sentence is printable ASCII and bounded for any document, so that it fits the 256 bytes of
`detail` in a failure answer (section 7).
"""

import json
import re
from typing import Any

import jsonschema_rs

from schemas.documents import at_location, title

# Characters of the field, the value and the whole sentence. The sentence fits `detail`; the field
# and the value leave room in it for what is allowed.
_MAX_FIELD, _MAX_VALUE, _MAX_SENTENCE = 96, 48, 256

# Member names that a path shows as they are; all others are quoted.
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_TYPES = {
    "array": "an array",
    "boolean": "true or false",
    "integer": "an integer",
    "null": "null",
    "number": "a number",
    "object": "an object",
    "string": "a string",
}
_BOUNDS = {
    "minimum": "must be at least",
    "maximum": "must be at most",
    "exclusiveMinimum": "must be greater than",
    "exclusiveMaximum": "must be less than",
}


class HeliumError(Exception):
    """Base of every exception that this project defines; `node.errors` draws the tree."""


class SchemaViolation(HeliumError, ValueError):
    """A document does not fit its schema.

    `field` is a dotted path such as `votes[0].signer`, "" for the document itself. `value` is the
    value of the field, None if it is missing. `allowed` says what it must be.
    """

    def __init__(self, field: str, value: object, allowed: str, *, problem: str = "") -> None:
        problem = problem or f"{describe_value(value)} is not allowed"
        sentence = f"{field or 'the document'}: {problem}: {allowed}"
        super().__init__(_cut(sentence.encode("ascii", "backslashreplace").decode(), _MAX_SENTENCE))
        self.field = field
        self.value = value
        self.allowed = allowed


def explain(
    error: jsonschema_rs.ValidationError, document: object, at: str = ""
) -> SchemaViolation:
    """Return the SchemaViolation for a validator's error on `document`, which has the path `at`."""
    keyword, limit = error.kind.name, error.kind.value
    location = str(error.absolute_keyword_location)
    schema = at_location(location)
    path, value = _path_and_value(document, error)
    field = _field(at, path)
    match keyword:
        case "required" if limit in schema.get("properties", {}):
            allowed = f"required, must be {title(schema['properties'][limit], location)}"
            return SchemaViolation(_field(field, [limit]), None, allowed, problem="is missing")
        case "additionalProperties":
            unknown = limit[0]
            allowed = "known members are " + ", ".join(schema["properties"])
            extra = value.get(unknown) if isinstance(value, dict) else None
            return SchemaViolation(_field(field, [unknown]), extra, allowed, problem="is unknown")
        case "propertyNames":
            inner = explain(error.kind.error, document, at)  # type: ignore[attr-defined]
            name = error.kind.error.instance  # type: ignore[attr-defined]
            return SchemaViolation(field, name, f"a member's name {inner.allowed}")
        case "oneOf" | "anyOf":
            intended = _error_of_intended_branch(error)
            if intended is not None:
                return explain(intended, document, at)
    return SchemaViolation(field, value, _allowed(keyword, limit, schema))


def describe_value(value: object) -> str:
    """Return `value` as text: ASCII, at most some 50 characters, at a bounded cost."""
    match value:
        case dict():
            return f"an object of {len(value)} members"
        case list() | tuple():
            return f"an array of {len(value)} items"
        case str():
            return _cut(json.dumps(value[: _MAX_VALUE + 1]), _MAX_VALUE)
        case int() if abs(value) >> 128:
            return f"an integer of {value.bit_length()} bits"
        case bool() | int() | float() | None:
            return json.dumps(value)
        case _:
            return f"a value of type {type(value).__name__}"


def printable(text: str) -> str:
    """Return `text` with a space for each unprintable character: what a peer sends may hold any."""
    return "".join(character if character.isprintable() else " " for character in text)


def _allowed(keyword: str, limit: Any, schema: dict[str, Any]) -> str:
    match keyword:
        case "type":
            return "must be " + " or ".join(_TYPES[name] for name in sorted(limit, key=_last))
        case "enum":
            return "must be one of " + ", ".join(json.dumps(option) for option in limit)
        case "const":
            return f"must be {json.dumps(limit)}"
        case "uniqueItems":
            return "must not hold the same item twice"
        case _ if keyword in _BOUNDS:
            return f"{_BOUNDS[keyword]} {limit}"
    return f"must be {schema['title']}"  # a title describes lengths and patterns


def _error_of_intended_branch(
    error: jsonschema_rs.ValidationError,
) -> jsonschema_rs.ValidationError | None:
    """Return the first error of the alternative whose type and constants the document fits.

    That is the one its author meant; the errors of the other alternatives would only confuse.
    """
    depth = len(error.instance_path)
    branches: list[list[jsonschema_rs.ValidationError]]
    branches = error.kind.context  # type: ignore[attr-defined]
    for branch in branches:
        mismatches = {(e.kind.name, len(e.instance_path) - depth) for e in branch}
        if branch and not mismatches & {("type", 0), ("const", 1)}:
            return branch[0]
    return None


def _field(start: str, path: list[str | int]) -> str:
    field = start
    for step in path:
        if isinstance(step, int):
            field += f"[{step}]"
        elif _PLAIN.match(step):
            field += f".{step}" if field else step
        else:
            field += f"[{describe_value(step)}]"
    return _cut(field, _MAX_FIELD)


def _path_and_value(
    document: Any, error: jsonschema_rs.ValidationError
) -> tuple[list[str | int], Any]:
    """Return the path of the error in `document`, and the value there.

    The validator's path gives a member named "1" as an index and leaves out a member named "".
    Where such a path leads nowhere, the validator's own path and value are returned.
    """
    path: list[str | int] = []
    for step in error.instance_path:
        named = str(step) if isinstance(document, dict) else step
        try:
            document = document[named]
        except (LookupError, TypeError):
            return error.instance_path, error.instance
        path.append(named)
    return path, document


def _last(type_name: str) -> bool:
    return type_name == "null"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
