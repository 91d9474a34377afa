"""Rules for the schema files: every value is bounded, titled and described."""

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import schemas
from schemas.documents import BASE, COMMON, at_location, title

EVERY = (*schemas.names(), COMMON)
# Objects whose members another schema checks, or that are maps with a rule for every name.
OPEN = {
    ("envelope", "body"),
    ("task", "args"),
    ("task-answer", "items"),
    ("envelopes-answer", "items"),
}


def _schemas(node: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every schema object in `node` with its member name."""
    if isinstance(node, dict) and isinstance(node.get("title", ""), str):
        yield key, node
    if isinstance(node, dict):
        for name, inner in node.items():
            if name in ("properties", "$defs"):
                for member, schema in inner.items():
                    yield from _schemas(schema, member)
            elif name in ("items", "additionalProperties", "propertyNames"):
                yield from _schemas(inner, name)
            elif name in ("oneOf", "anyOf"):
                for schema in inner:
                    yield from _schemas(schema, name)


def _all() -> list[tuple[str, str, dict[str, Any]]]:
    return [(name, key, schema) for name in EVERY for key, schema in _schemas(schemas.load(name))]


def _types(schema: dict[str, Any]) -> set[str]:
    types = schema.get("type", [])
    return {types} if isinstance(types, str) else set(types)


@pytest.mark.parametrize("name", EVERY)
def test_file_is_a_2020_12_schema_with_its_own_address(name: str) -> None:
    document = schemas.load(name)
    Draft202012Validator.check_schema(document)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert document["$id"] == f"{BASE}{name}.json"


def test_every_object_restricts_its_members() -> None:
    for name, key, schema in _all():
        if "object" in _types(schema) and (name, key) not in OPEN:
            assert "additionalProperties" in schema, (name, key)
            named = schema["additionalProperties"] is False
            assert named or {"propertyNames", "maxProperties"} <= schema.keys(), (name, key)


def test_every_string_has_maximum_length_and_anchored_pattern() -> None:
    for name, key, schema in _all():
        if "string" in _types(schema) or key == "propertyNames":
            if "$ref" in schema:
                continue
            assert {"maxLength", "pattern"} <= schema.keys(), (name, key)
            assert schema["pattern"][0] == "^", (name, key)
            assert schema["pattern"][-1] == "$", (name, key)


def test_every_number_has_a_range_within_exact_integers() -> None:
    for name, key, schema in _all():
        if _types(schema) & {"number", "integer"}:
            low: float = schema.get("minimum", schema.get("exclusiveMinimum", -(2**53)))
            assert -(2**53) < low < schema["maximum"] < 2**53, (name, key)


def test_every_array_is_bounded() -> None:
    for name, key, schema in _all():
        if "array" in _types(schema):
            assert {"items", "maxItems"} <= schema.keys(), (name, key)


def test_every_field_has_title_and_description() -> None:
    for name, key, schema in _all():
        assert title(schema, f"{BASE}{name}.json#/"), (name, key)
        described = schema.get("description") or at_location(_target(schema, name))["description"]
        assert described.endswith("."), (name, key)


def _target(schema: dict[str, Any], name: str) -> str:
    reference = str(schema["$ref"])
    start = f"{BASE}{name}.json" if reference.startswith("#") else BASE
    return start + reference + ("/" if "#" in reference else "#/")


def test_no_schema_is_recursive() -> None:
    """A validator would follow a recursive schema to the depth of the document."""

    def follow(name: str, node: Any, seen: tuple[str, ...]) -> None:
        if isinstance(node, list):
            for inner in node:
                follow(name, inner, seen)
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                target = _target(node, name)
                assert target not in seen
                file = target.removeprefix(BASE).partition(".json")[0]
                follow(file, at_location(target), (*seen, target))
            for inner in node.values():
                follow(name, inner, seen)

    for name in EVERY:
        follow(name, schemas.load(name), ())


def test_load_returns_a_copy() -> None:
    schemas.load("task")["required"].clear()
    assert schemas.load("task")["required"]


def test_limits_cover_the_task_arguments() -> None:
    limits = _limits()
    members = {
        member
        for kind in ("text-to-music", "pop2piano")
        for member in schemas.load(kind)["properties"]["generation_config"]["properties"]
    }
    args = schemas.load("text-to-music")["properties"]
    assert set(limits["generation_config"]["items"]["enum"]) == members
    assert limits["generation_config"]["maxItems"] == len(members)
    assert {*limits["dtypes"]["items"]["enum"], "auto", None} == {*args["dtype"]["enum"]}
    assert {*limits["quantize_bits"]["items"]["enum"], None} == {*args["quantize_bits"]["enum"]}


def _limits() -> dict[str, Any]:
    model = schemas.load("network")["properties"]["models"]["items"]
    names: dict[str, Any] = model["properties"]["limits"]["properties"]
    return names


def test_text_to_music_has_reference_members_and_required_seed() -> None:
    document = schemas.load("text-to-music")
    assert document["required"] == ["model", "prompt", "seed"]
    assert list(document["properties"]["generation_config"]["properties"]) == [
        "max_new_tokens",
        "do_sample",
        "temperature",
        "top_k",
        "top_p",
        "num_return_sequences",
        "guidance_scale",
    ]
