from pathlib import Path

import pytest

from node.cli import arguments
from node.cli.exits import Failure
from tests.node.cli.conftest import Helium

NOTHING = dict.fromkeys(
    (
        *("model", "prompt", "seed", "dtype", "quantize_bits", "max_new_tokens", "do_sample"),
        *("temperature", "top_k", "top_p", "num_return_sequences", "guidance_scale"),
    )
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "task.json"


def test_a_file_is_taken_as_it_stands(file: Path) -> None:
    file.write_text('{"model": "m", "generation_config": null, "dtype": null, "odd": [1.0]}')
    found = arguments.merged(file, NOTHING)
    assert found == {"model": "m", "generation_config": None, "dtype": None, "odd": [1]}


def test_flags_count_before_the_file(file: Path) -> None:
    file.write_text('{"seed": 1, "prompt": "x", "generation_config": {"top_k": 5, "top_p": 0.5}}')
    given = {**NOTHING, "seed": 2, "top_k": 0, "do_sample": False}
    assert arguments.merged(file, given) == {
        "seed": 2,
        "prompt": "x",
        "generation_config": {"top_k": 0, "top_p": 0.5, "do_sample": False},
    }


def test_flags_alone_are_a_task() -> None:
    given = {**NOTHING, "model": "m", "prompt": "p", "seed": 0}
    assert arguments.merged(None, given) == {"model": "m", "prompt": "p", "seed": 0}


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
def test_a_bad_file_is_named(file: Path, text: str, reason: str) -> None:
    file.write_text(text)
    with pytest.raises(Failure, match=reason) as raised:
        arguments.merged(file, NOTHING)
    assert raised.value.exit_code == 2
    assert str(file) in raised.value.message


@pytest.mark.parametrize("flag", ["--temperature", "--top-p", "--guidance-scale"])
@pytest.mark.parametrize("number", ["nan", "inf", "-Infinity", "1e999"])
def test_what_json_cannot_hold_is_wrong_usage(flag: str, number: str, helium: Helium) -> None:
    done = helium("submit", flag, number)
    assert done.exit_code == 2
    assert f"'{flag}': '{number}' is no finite number" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_huge_file_is_not_read_whole(file: Path) -> None:
    file.write_text(" " * 2_000_000)
    with pytest.raises(Failure, match="longer than 1048576 bytes"):
        arguments.merged(file, NOTHING)
