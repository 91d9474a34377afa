from types import SimpleNamespace
from typing import Any

import pytest

from executor.tasks.arguments import config_members, use_floats
from schemas import load
from tests.executor.delivery import delivered

KINDS = ("text-to-music", "pop2piano")
MEMBERS = [
    (kind, name, schema)
    for kind in KINDS
    for name, schema in load(kind)["properties"]["generation_config"]["properties"].items()
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("args", [{}, {"generation_config": None}, {"generation_config": {}}])
def test_no_config_has_no_members(args: dict[str, object], kind: str) -> None:
    assert config_members(kind, args) == {}


def test_null_members_are_dropped_and_zeros_are_kept() -> None:
    config = {"top_k": None, "temperature": 0, "do_sample": False}
    members = config_members(KINDS[0], {"generation_config": config})
    assert members == {"temperature": 0, "do_sample": False}


@pytest.mark.parametrize(("kind", "name", "schema"), MEMBERS)
def test_each_member_has_its_declared_type_however_it_was_written(
    kind: str, name: str, schema: dict[str, Any]
) -> None:
    declared = next(type_ for type_ in schema.get("type", ["integer"]) if type_ != "null")
    values: dict[str, list[Any]] = {
        "number": [0, 1, 1.0, 0.5, -0.0],
        "integer": [1, 1.0, 4],
        "boolean": [True, False],
    }
    expected = {"number": float, "integer": int, "boolean": bool}[declared]
    for value in values[declared]:
        args = {"generation_config": {name: value}}
        for received in (args, delivered(args)):
            member = config_members(kind, received)[name]
            assert type(member) is expected
            assert member == value


def test_the_wire_delivers_whole_numbers_as_integers() -> None:
    """What the conversion is for: canonical JSON has no 2.0."""
    config = delivered({"generation_config": {"temperature": 2.0}})["generation_config"]
    assert type(config["temperature"]) is int


def test_a_models_own_whole_numbers_become_floats() -> None:
    own = SimpleNamespace(
        temperature=2, top_k=5, do_sample=True, top_p=None, semantic_config={"temperature": 1}
    )
    use_floats(own)
    assert type(own.temperature) is type(own.semantic_config["temperature"]) is float
    assert (own.temperature, own.top_k, own.do_sample, own.top_p) == (2.0, 5, True, None)
    use_floats(None)
