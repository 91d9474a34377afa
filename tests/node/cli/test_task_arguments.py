import copy
from pathlib import Path
from typing import Any

import pytest

from node.cli import task_arguments
from node.cli.exit_codes import Failure
from protocol.network import Network
from protocol.wire.encoding import canonical
from tests.node.cli.conftest import Helium
from tests.support import fixtures

NO_FLAGS = dict.fromkeys(
    (
        *("model", "prompt", "seed", "dtype", "quantize_bits", "max_new_tokens", "do_sample"),
        *("temperature", "top_k", "top_p", "num_return_sequences", "guidance_scale"),
    )
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "task.json"


def test_a_file_is_not_changed(file: Path) -> None:
    file.write_text('{"model": "m", "generation_config": null, "dtype": null, "odd": [1.0]}')
    args = task_arguments.merge_args(file, NO_FLAGS)
    assert args == {"model": "m", "generation_config": None, "dtype": None, "odd": [1]}


def test_flags_override_the_file(file: Path) -> None:
    file.write_text('{"seed": 1, "prompt": "x", "generation_config": {"top_k": 5, "top_p": 0.5}}')
    values = {**NO_FLAGS, "seed": 2, "top_k": 0, "do_sample": False}
    assert task_arguments.merge_args(file, values) == {
        "seed": 2,
        "prompt": "x",
        "generation_config": {"top_k": 0, "top_p": 0.5, "do_sample": False},
    }


def test_flags_suffice_without_a_file() -> None:
    values = {**NO_FLAGS, "model": "m", "prompt": "p", "seed": 0}
    assert task_arguments.merge_args(None, values) == {"model": "m", "prompt": "p", "seed": 0}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"seed": 1, "seed": 2}', "duplicate member 'seed'"),
        ('{"seed": 1', "not JSON"),
        ('{"seed": Infinity}', "Infinity is no JSON number"),
        ("[" * 17 + "]" * 17, "nested deeper than 16"),
        ('"text"', "must be a JSON object"),
        ('{"prompt": "\\ud800"}', "surrogate"),
    ],
)
def test_a_malformed_file_is_named(file: Path, text: str, reason: str) -> None:
    file.write_text(text)
    with pytest.raises(Failure, match=reason) as raised:
        task_arguments.merge_args(file, NO_FLAGS)
    assert raised.value.exit_code == 2
    assert str(file) in raised.value.message


@pytest.mark.parametrize("flag", ["--temperature", "--top-p", "--guidance-scale"])
@pytest.mark.parametrize("number", ["nan", "inf", "-Infinity", "1e999"])
def test_numbers_that_json_cannot_hold_are_usage_errors(
    flag: str, number: str, helium: Helium
) -> None:
    done = helium("submit", flag, number)
    assert done.exit_code == 2
    assert f"'{flag}': '{number}' is not a finite number" in done.stderr
    assert done.stderr.count("\n") == 1


MUSIC = {"max_new_tokens": 1503, "frame_rate": 50, "delay": 3}
PEER = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWGgG9mmYggTBgjN6kdVkg7Fn9hLjnGLSMtxPFC8wJwwKz"
FLAGS = ("--model", fixtures.MODEL, "--prompt", "rain", "--seed", "1")


def listed(limits: dict[str, Any]) -> Network:
    document = copy.deepcopy(fixtures.network_document())
    document["models"][0]["limits"] = limits
    return Network.parse(canonical(document))


def test_seconds_become_tokens_of_the_networks_model(file: Path) -> None:
    file.write_text('{"generation_config": {"top_p": 0.0}}')
    values = {**NO_FLAGS, "audio": (), "model": fixtures.MODEL, "seed": 1, "seconds": 8.0}
    request = task_arguments.task_request(file, values)
    assert request.args_for(listed(MUSIC)) == {
        "model": fixtures.MODEL,
        "seed": 1,
        "generation_config": {"top_p": 0.0, "max_new_tokens": 403},
    }


def test_without_seconds_the_arguments_are_not_changed(file: Path) -> None:
    file.write_text('{"model": "m", "generation_config": null}')
    request = task_arguments.task_request(file, {**NO_FLAGS, "audio": (), "seconds": None})
    assert request.args_for(listed(MUSIC)) == {"model": "m", "generation_config": None}


@pytest.mark.parametrize(
    ("limits", "flags", "reason"),
    [
        (MUSIC, ["--seconds", 8, "--max-new-tokens", 403], "max_new_tokens is given too"),
        (MUSIC, ["--seconds", 31], "--seconds 31: helium/embedded-music gives at most 30 s"),
        (MUSIC, ["--seconds", 0], "--seconds 0: 0.0 is no length in seconds"),
        (MUSIC, ["--seconds", "long"], "'--seconds': 'long' is not a valid float"),
        ({}, ["--seconds", 8], "--seconds 8: how long this model sounds is not decided by max_"),
    ],
)
def test_impossible_seconds_are_usage_errors(
    limits: dict[str, Any], flags: list[object], reason: str, helium: Helium
) -> None:
    """They are reported before any node is asked."""
    Path("n.json").write_bytes(canonical(listed(limits).document))
    done = helium("submit", *FLAGS, *flags, "--network", "n.json", "--peer", PEER)
    assert done.exit_code == 2, done.stderr
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_oversized_file_is_rejected(file: Path) -> None:
    file.write_text(" " * 2_000_000)
    with pytest.raises(Failure, match="longer than 1048576 bytes"):
        task_arguments.merge_args(file, NO_FLAGS)


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        (["--seed", 2**64], "args.seed"),
        (["--seed", -1], "args.seed"),
        (["--prompt", ""], "args.prompt"),
        (["--prompt", "a\udcffb"], "args.prompt: is not Unicode text"),
        (["--prompt", "\x1b[2J"], "args.prompt"),
        (["--temperature", -1], "args.generation_config.temperature"),
        (["--temperature", 1e30], "args.generation_config.temperature"),
        (["--max-new-tokens", 0], "args.generation_config.max_new_tokens"),
        (["--top-k", "9" * 400], "args.generation_config.top_k"),
        (["--dtype", "int3"], "args.dtype"),
        (["--quantize-bits", 5], "args.quantize_bits"),
        (["--deadline", -1], "deadline"),
        (["--class", ""], "class"),
        (["--audio", "none.wav"], "none.wav: cannot be read"),
        (["--audio", "n.json"], "n.json: neither WAV (PCM, float) nor FLAC, but JSON"),
    ],
)
def test_values_that_no_network_takes_are_usage_errors(
    flags: list[object], field: str, helium: Helium
) -> None:
    """They are reported before any node is asked."""
    Path("n.json").write_bytes(canonical(fixtures.network_document()))
    done = helium("submit", *FLAGS, *flags, "--network", "n.json", "--peer", PEER)
    assert done.exit_code == 2, done.stderr
    assert field in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_this_network_does_not_take_is_a_rejection(helium: Helium) -> None:
    Path("n.json").write_bytes(canonical(listed(MUSIC).document))
    for flags in (["--model", "nobody/knows"], ["--deadline", 86_400]):
        done = helium("submit", *FLAGS, *flags, "--network", "n.json", "--peer", PEER)
        assert done.exit_code == 4, done.stderr
        assert done.stderr.startswith("helium: task rejected: ")
