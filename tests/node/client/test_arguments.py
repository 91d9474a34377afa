"""What a caller in Python may get wrong: a ValueError of the library that names the field."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.client import arguments
from node.client.arguments import InvalidArgument
from node.client.client import Client
from node.client.submission import sign_task
from protocol.wire.messages import Task
from schemas.errors import HeliumError
from tests.simulation import virtual_loop
from tests.support import fixtures

NET = fixtures.network()
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


def signed(kind: Any = "text-to-music", args: Any = None, **changes: Any) -> Task:
    fields: dict[str, Any] = {
        "compute_class": None,
        "deadline": None,
        "created": 0,
        "nonce": "0" * 32,
        **changes,
    }
    return sign_task(NET, KEY, kind, fixtures.args() if args is None else args, **fields)


HUGE = 10**5000  # longer than the digits that Python writes
BAD_MEMBERS: dict[str, list[Any]] = {
    "seed": [
        *(2**64, 2**32, -1, 1.5, True, "1", math.nan, HUGE, None, b"1"),
        *(np.int64(-1), np.bool_(True), Fraction(10**400, 3)),
    ],
    "prompt": [
        *("", "\ud800", "a\x00b", "\ufffe", 5, None, Path("x"), b"x", "x" * 5000, ["a"], {"a"}),
        object(),
    ],
    "model": ["", None, 1, "../../etc", "a\nb"],
    "dtype": ["int3", 32, np.float32],
    "quantize_bits": [5, "4", True],
    "generation_config": [[], "x", 1, True, {"odd": 1}, {1: 2}, {"\ud800": 1}],
}
BAD_SETTINGS: dict[str, list[Any]] = {
    "temperature": [math.nan, math.inf, -math.inf, -1, 1e9, "1", True, 1e308],
    "max_new_tokens": [0, -5, 1.5, 2**70, "9", [], np.float32("inf")],
    "top_k": [-1, 2.5, math.nan],
    "top_p": [1.5, -0.1, np.array([0.5, 0.6])],
    "do_sample": [1, 0, "true", np.int8(1)],
}
BAD_PARAMETERS: dict[str, list[Any]] = {
    "deadline": [-1, 0, 1.5, math.inf, math.nan, True, "60", HUGE, b"1"],
    "compute_class": ["", 5, "\udcff", b"cpu", ["cpu"]],
    "kind": ["", None, 5, "juggling", b"text-to-music", ["text-to-music"]],
    "args": ["x", [], 5, [("a", 1)]],
}


@pytest.mark.parametrize("field", BAD_MEMBERS)
def test_a_bad_argument_is_named(field: str) -> None:
    for value in BAD_MEMBERS[field]:
        with pytest.raises(InvalidArgument) as refused:
            signed(args=fixtures.args(**{field: value}))
        assert field in str(refused.value)
        assert isinstance(refused.value, ValueError)
        assert isinstance(refused.value, HeliumError)
        assert str(refused.value).isprintable()


@pytest.mark.parametrize("field", BAD_SETTINGS)
def test_a_bad_generation_setting_is_named(field: str) -> None:
    for value in BAD_SETTINGS[field]:
        with pytest.raises(InvalidArgument, match=rf"args\.generation_config.*{field}"):
            signed(args=fixtures.args(generation_config={field: value}))


@pytest.mark.parametrize("field", BAD_PARAMETERS)
def test_a_bad_parameter_is_named(field: str) -> None:
    for value in BAD_PARAMETERS[field]:
        with pytest.raises(InvalidArgument, match=field.removeprefix("compute_")):
            signed(**{field: value})


def test_numpy_scalars_are_numbers() -> None:
    config = {"temperature": np.float64(0.5), "top_k": np.int32(5), "do_sample": np.bool_(False)}
    task = signed(args=fixtures.args(seed=np.uint32(7), generation_config=config))
    assert task.args["seed"] == 7
    assert task.args["generation_config"] == {"temperature": 0.5, "top_k": 5, "do_sample": False}


def test_arguments_nested_without_end_are_refused() -> None:
    endless: dict[str, Any] = {}
    endless["a"] = endless
    with pytest.raises(InvalidArgument, match="nested deeper"):
        signed(args=endless)


def test_a_bad_length_is_named() -> None:
    for value in (math.nan, math.inf, -1, 0, "5", True, b"5", HUGE, [5]):
        with pytest.raises(InvalidArgument, match="seconds"):
            arguments.seconds(value)


@pytest.mark.parametrize("value", ["", "0" * 63, "G" * 64, None, 5, b"0" * 64, "0" * 64 + "\n"])
def test_a_bad_task_id_is_named(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="task"):
        arguments.task_id(value)


BAD_CONNECTIONS: dict[str, list[Any]] = {
    "peers": ["/ip4/1.1.1.1/tcp/1", b"x", None, [5], ["\ud800"], ["x"], 5],
    "network": [None, "n.json", Path("n.json"), {}, 5],
    "key": [bytes(32), "key.pem", 5],
}


@pytest.mark.parametrize("field", BAD_CONNECTIONS)
def test_a_bad_parameter_of_connect_is_named(field: str) -> None:
    async def main() -> None:
        for value in BAD_CONNECTIONS[field]:
            parameters: dict[str, Any] = {"network": NET, "peers": [], field: value}
            with pytest.raises(InvalidArgument, match=field):
                async with Client.connect(**parameters):
                    pass

    virtual_loop.run(main)
