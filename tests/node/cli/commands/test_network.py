import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from executor.models.families import DTYPES, MUSIC
from executor.models.folders import DEFAULTS, EMBEDDED, SHIPPED, weights_digest
from protocol.network import Network
from protocol.wire.encoding import canonical
from protocol.wire.signing import peer_of
from tests.node.cli.certified import keys
from tests.node.cli.conftest import Helium

PEERS = [peer_of(key) for key in keys(3)]


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    path = tmp_path / "runtime.json"
    path.write_text('{"device": "cpu", "threads": 1}')
    return path


@pytest.fixture
def created(helium: Helium, runtime: Path) -> Network:
    done = helium(
        *("network", "create", "n.json", "--class-from", runtime, "--name", "demo"),
        *("--model", EMBEDDED, "--member", f"{PEERS[0]}=alice", "--committee-size", 1),
    )
    assert done.exit_code == 0, done.stderr
    return Network.parse(Path("n.json").read_bytes())


def test_create_writes_the_canonical_document(created: Network) -> None:
    assert Path("n.json").read_bytes() == canonical(created.document)
    assert created.document["name"] == "demo"
    assert created.parameters.committee_size == 1
    assert created.parameters.committee_max == 7
    model = created.models[EMBEDDED]
    assert model.digest == weights_digest(SHIPPED / EMBEDDED)
    assert model.limits == {
        "max_new_tokens": 2048,
        "generation_config": list(MUSIC),
        "dtypes": list(DTYPES),
        "quantize_bits": [4, 8],
        "frame_rate": 50,
        "delay": 3,
    }
    assert created.roster[PEERS[0]].operator == "alice"
    assert created.classes == {"cpu": {"device": "cpu", "threads": 1}}


def test_create_without_a_model_lists_the_shipped_models(helium: Helium, runtime: Path) -> None:
    done = helium("network", "create", "n.json", "--class-from", runtime)
    assert done.exit_code == 0, done.stderr
    models = Network.parse(Path("n.json").read_bytes()).models
    assert {name: (model.digest, model.tasks) for name, model in models.items()} == {
        name: (weights_digest(SHIPPED / name), (task,))
        for name, task in zip(DEFAULTS, ("text-to-music", "pop2piano"), strict=True)
    }


def test_create_replaces_a_file_only_with_force(
    helium: Helium, created: Network, runtime: Path
) -> None:
    content = Path("n.json").read_bytes()
    again = ("network", "create", "n.json", "--class-from", runtime)
    done = helium(*again)
    assert done.exit_code == 2
    assert "--force" in done.stderr
    assert Path("n.json").read_bytes() == content
    assert helium(*again, "--force").exit_code == 0
    assert Path("n.json").read_bytes() != content


def test_show_prints_the_id_and_the_document(helium: Helium, created: Network) -> None:
    output = json.loads(helium("network", "show", "n.json", "--json").stdout)
    assert output == {"id": created.id, "document": created.document}
    lines = helium("network", "show", "n.json").stdout
    assert created.id in lines
    assert PEERS[0] in lines


def test_show_prints_each_models_limits(helium: Helium, created: Network) -> None:
    document: Any = copy.deepcopy(dict(created.document))
    limits = {"max_new_tokens": 9, "generation_config": [], "odd": "\x9b[31m"}
    document["models"].append({**document["models"][0], "id": "acme/voice", "limits": limits})
    Path("n.json").write_bytes(canonical(document))
    lines = helium("network", "show", "n.json").stdout.splitlines()
    start = next(n for n, line in enumerate(lines) if EMBEDDED in line)
    assert [line.strip() for line in lines[start + 1 : start + 7]] == [
        "delay 3",
        "dtypes float32, float16, bfloat16",
        "frame_rate 50",
        f"generation_config {', '.join(MUSIC)}",
        "max_new_tokens 2048",
        "quantize_bits 4, 8",
    ]
    assert "acme/voice" in lines[start + 7]
    assert [line.strip() for line in lines[start + 8 : start + 11]] == [
        *("generation_config none", "max_new_tokens 9", 'odd "\\u009b[31m"')
    ]


def test_add_extends_the_document_and_reports_the_new_id(helium: Helium, created: Network) -> None:
    done = helium("network", "add", "n.json", "--member", PEERS[1], "--json")
    new = Network.parse(Path("n.json").read_bytes())
    assert list(new.roster) == PEERS[:2]
    assert new.roster[PEERS[1]].operator == PEERS[1]
    assert f"changed from {created.id} to {new.id}" in done.stderr
    printed = json.loads(done.stdout)
    assert (printed["id"], printed["previous"]) == (new.id, created.id)


def test_add_can_write_another_file(helium: Helium, created: Network) -> None:
    content = Path("n.json").read_bytes()
    limit = ("--limit", "max_new_tokens=9", "--model-attempt-seconds", 600)
    member = ("--member", PEERS[1])
    done = helium("network", "add", "n.json", *member, *limit, "-o", "m.json")
    assert done.exit_code == 0, done.stderr
    assert Path("n.json").read_bytes() == content
    assert len(Network.parse(Path("m.json").read_bytes()).roster) == 2
    assert helium("network", "add", "n.json", *member, "-o", "m.json").exit_code == 2


def test_a_model_on_disk_is_listed_with_its_limits(
    helium: Helium, created: Network, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "acme" / "small@2"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "musicgen"}')
    save_file({"w": np.ones(1, np.float32)}, folder / "model.safetensors")
    done = helium(
        *("network", "add", "n.json", "--models-dir", "models", "--model", "acme/small@2"),
        *("--limit", "max_new_tokens=9", "--model-attempt-seconds", 600),
    )
    assert done.exit_code == 0, done.stderr
    model = Network.parse(Path("n.json").read_bytes()).models["acme/small"]
    assert model.revision == "2"
    assert model.digest == weights_digest(folder)
    assert (model.limits["max_new_tokens"], model.attempt_seconds) == (9, 600)
    assert "frame_rate" not in model.limits  # that config.json tells no codec


def test_a_model_without_generation_config_is_listed_so(
    helium: Helium, created: Network, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "acme" / "voice"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "fastspeech2_conformer"}')
    save_file({"w": np.ones(1, np.float32)}, folder / "model.safetensors")
    done = helium("network", "add", "n.json", "--models-dir", "models", "--model", "acme/voice")
    assert done.exit_code == 0, done.stderr
    limits = Network.parse(Path("n.json").read_bytes()).models["acme/voice"].limits
    assert limits == {"generation_config": [], "dtypes": ["float32"], "quantize_bits": [8]}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--member", "nobody"], 'roster[0].peer: "nobody" is not allowed'),
        (["--member", f"{PEERS[0]}", "--member", PEERS[0]], "is listed twice"),
        (["--model", "acme/none"], "--model acme/none: "),
        (["--committee-size", "0"], "parameters.committee_size: 0 is not allowed"),
        (["--committee-size", "9"], "parameters.committee_max: is smaller"),
        (["--name", "no spaces"], 'name: "no spaces" is not allowed'),
        (["--model", EMBEDDED, "--limit", "x"], "--limit x: must be NAME=N"),
        (["--model", EMBEDDED, "--limit", "y=1"], "with a NAME of max_new_tokens, num_return_se"),
        (["--model", EMBEDDED, "--limit", "delay=1"], "--limit delay=1: must be NAME=N"),
        (["--model", EMBEDDED, "--limit", "max_new_tokens=0"], "models[0].limits.max_new_tokens"),
    ],
)
def test_an_error_is_named_and_nothing_is_written(
    helium: Helium, runtime: Path, arguments: list[str], reason: str
) -> None:
    done = helium("network", "create", "n.json", "--class-from", runtime, *arguments)
    assert done.exit_code == 2
    assert reason in done.stderr
    assert not Path("n.json").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "duplicate member 'a'"),
        ("[1]", "classes.cpu"),
        ("{", "not JSON"),
        ('{"a": NaN}', "NaN is no JSON number"),
    ],
)
def test_a_malformed_class_file_is_named(
    helium: Helium, runtime: Path, text: str, reason: str
) -> None:
    runtime.write_text(text)
    done = helium("network", "create", "n.json", "--class-from", runtime)
    assert done.exit_code == 2
    assert reason in done.stderr


def test_adding_nothing_is_a_usage_error(helium: Helium, created: Network) -> None:
    assert helium("network", "add", "n.json").exit_code == 2
