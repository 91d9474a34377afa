"""Wrong arguments of scripts, as a shell passes them: a line that names the argument, exit code 2.

One process tries the wrong arguments of all scripts, because importing torch takes seconds.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import arguments
from tests.property.test_parsers import PARSERS

ROOT = Path(__file__).resolve().parents[2]

# Runs each module as `python -m` does, with each list of arguments.
RUN_ALL = """
import contextlib, io, json, runpy, sys
ends = []
for module, case in json.loads(sys.argv[1]):
    sys.argv[1:] = case
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            ends.append((end.code, printed.getvalue()))
print(json.dumps(ends))
"""

# By module: arguments, and the beginning of the line. {file} is a file of text, {none} is nothing,
# {folder} has other files.
WRONG = {
    "scripts.testnet_tool": [
        ("--nodes 0", "Invalid value for '--nodes': 0 is not in the range"),
        ("--nodes x", "Invalid value for '--nodes': 'x' is not a valid integer"),
        ("--liars 5", "--liars 5: must not exceed --nodes 4"),
        ("--committee 8", "Invalid value for '--committee': 8 is not in the range"),
        ("--task {none}", "Invalid value for '--task': File '{none}' does not exist"),
        ("--task {folder}", "Invalid value for '--task': File '{folder}' is a directory"),
        ("--task {file} --out {none}", "--task: {file}: "),
        ("--out {file}", "Invalid value for '--out': Directory '{file}' is a file"),
        ("--out {file}/x", "--out: {file}/x"),
        ("--out {folder}", "--out: {folder} holds other files"),
        ("--resume --out {none}2", "--resume: {none}2 holds no test network to resume: "),
        ("--resume --out {resumed}", "--resume: {resumed} holds no test network to resume: "),
        ("--port 1", "No such option '--port'"),
    ],
    "scripts.chaos_tool": [
        ("--nodes 2", "Invalid value for '--nodes': 2 is not in the range"),
        ("--kills -1", "Invalid value for '--kills': -1 is not in the range"),
        ("--fault-seconds nan", "Invalid value for '--fault-seconds': nan is not a number"),
        ("--fault-seconds inf", "Invalid value for '--fault-seconds': inf is not in the range"),
        ("--partition-seconds -1", "Invalid value for '--partition-seconds': -1.0 is not in"),
        ("--nodes 5", "--liars 3: must be fewer than half of --nodes 5"),
        ("--only x", "Invalid value for '--only': 'x' is not one of"),
        ("--out {file}", "Invalid value for '--out': Directory '{file}' is a file"),
    ],
    "scripts.simulate": [
        ("--seeds x", "Invalid value for '--seeds': 'x' is neither N nor N..M"),
        ("--seeds 5..1", "Invalid value for '--seeds': '5..1' is not N..M"),
        ("--nodes 0", "Invalid value for '--nodes': '0' is not within 1..31"),
        ("--nodes 4..32", "Invalid value for '--nodes': '4..32' is not within 1..31"),
        ("--faulty -1", "Invalid value for '--faulty': -1 is not in the range"),
        ("--jobs 0", "Invalid value for '--jobs': 0 is not in the range"),
        ("--replay x", "Invalid value for '--replay': 'x' is not a valid integer"),
        ("--replay -1", "Invalid value for '--replay': -1 is not in the range"),
    ],
    "scripts.random_mutants": [
        ("--count 0", "Invalid value for '--count': 0 is not in the range"),
        ("--jobs -1", "Invalid value for '--jobs': -1 is not in the range"),
        ("--folder {file}", "Invalid value for '--folder': Directory '{file}' is a file"),
    ],
    "scripts.vectors": [
        ("--folder {none}", "--folder: '{none}': No such file or directory"),
        ("--folder {file}", "--folder: '{file}': Not a directory"),
        ("x", "unrecognized arguments: x"),
    ],
    "scripts.settings_doc": [("--chek", "unrecognized arguments: --chek")],
    "scripts.build_small_model": [
        ("", "the following arguments are required: FOLDER"),
        ("{file}", "FOLDER: '{file}': Not a directory"),
        ("{none} {none}", "unrecognized arguments: {none}"),
    ],
    "scripts.build_tiny_models": [
        ("", "name a FOLDER"),
        ("nothing {none}", "CLASS: 'nothing' is none of "),
        ("bark {file}/x", "FOLDER: '{file}/x': Not a directory"),
        ("--liste {none}", "unrecognized arguments: --liste"),
    ],
    "scripts.cpu_matrix": [
        ("--case float99", "--case: float99 main is in none of the model folders"),
        ("--case tiny/bark:float99", "--case: 'float99' is none of float32, float16"),
        (
            "--case helium/embedded-pop2piano",
            "--case: helium/embedded-pop2piano needs --audio FILE",
        ),
        ("--models {none}", "--models: '{none}': No such file or directory"),
        ("--audio {folder}", "--audio: '{folder}': Is a directory"),
        ("--timeout nan", "--timeout: nan is not over 0"),
        ("--timeout x", "--timeout: 'x' is not a number"),
    ],
    "scripts.bench_tool.engine": [
        ("--shape x", "--shape: invalid choice: 'x'"),
        ("--precision int2", "--precision: invalid choice: 'int2'"),
        ("--threads 0", "--threads: 0 is not from 1 to 64"),
        ("--tokens 7", "--tokens: 7 is not from 8 to 2000"),
        ("--rounds 0", "--rounds: 0 is not at least 1"),
        ("--sequences 1", "--sequences: 1 is not from 2 to 16"),
        ("--plot {none}", "--plot: '{none}' does not end in .svg"),
        ("--shape small --models {folder}", "--models: random/small main is in none of the model"),
    ],
    "scripts.bench_tool.tokens": [
        ("--songs 0", "--songs: 0 is not at least 1"),
        ("--tokens 7", "--tokens: 7 is not from 8 to 2000"),
        ("--model no/such", "--model: no/such main is in none of the model folders"),
    ],
    "scripts.bench_tool.executor": [
        ("--repeat 0", "--repeat: 0 is not at least 1"),
        ("--tokens x", "--tokens: 'x' is not a whole number"),
        ("--starts -1", "--starts: -1 is not at least 0"),
        ("--models {file}", "--models: '{file}': Not a directory"),
        ("--model no/such", "--model: no/such main is in none of the model folders"),
    ],
    "scripts.bench_tool.flood": [
        ("--nodes 32", "--nodes: 32 is not from 1 to 31"),
        ("--seconds nan", "--seconds: nan is not over 0"),
        ("--turns 0", "--turns: 0 is not at least 1"),
        ("--kind x", "--kind: invalid choice: 'x'"),
    ],
    "scripts.bench_tool.load": [
        ("--tasks 0", "--tasks: 0 is not at least 1"),
        ("--nodes 99", "--nodes: 99 is not from 3 to 31"),
        ("--median 0", "--median: 0 is not over 0"),
        ("--sigma -1", "--sigma: -1 is not at least 0"),
        ("--grace 61", "--grace: 61 is not over 0 and at most 60"),
        ("--median 1e9", "--attempt-factor: an attempt must last 1 to 86400 s"),
    ],
    "scripts.bench_tool.idle": [
        ("--nodes 1", "--nodes: 1 is not from 2 to 100"),
        ("--nodes 4 x", "--nodes: 'x' is not a whole number"),
        ("--warm-up -1", "--warm-up: -1 is not from 0 to 3600"),
        ("--seconds 0", "--seconds: 0 is not over 0 and at most 3600"),
    ],
    "scripts.bench_tool.burst": [
        ("--nodes 101", "--nodes: 101 is not from 2 to 100"),
        ("--tasks 60 0", "--tasks: 0 is not from 1 to 1000"),
        ("--rounds 0", "--rounds: 0 is not at least 1"),
        ("--grace 61", "--grace: 61 is not over 0 and at most 60"),
        ("--committee 32", "--committee: 32 is not from 1 to 31"),
        ("--execution nan", "--execution: nan is not over 0"),
        ("--idle 0", "--idle: 0 is not over 0"),
    ],
    "scripts.bench_tool.envelopes": [
        ("--nodes 2", "--nodes: 2 is not from 3 to 64"),
        ("--open -1", "--open: -1 is not from 0 to 100000"),
        ("--rounds 0", "--rounds: 0 is not from 1 to 10000"),
    ],
    "scripts.models.common.train": [
        ("music", "the following arguments are required: folder"),
        ("music {file}", "folder: '{file}': Not a directory"),
        ("music {none} --steps 0", "--steps: 0 is not at least 1"),
        ("music {none} --rate nan", "--rate: nan is not over 0"),
        ("music {none} --seed 99999999999999999999", "--seed: 99999999999999999999 is not from"),
        ("piano {none} --threads 0", "--threads: 0 is not from 1 to 1024"),
        ("music {none} --device tpu", "--device: invalid choice: 'tpu'"),
    ],
    "scripts.models.common.export": [
        ("organ {file}", "model: invalid choice: 'organ'"),
        ("music {none}", "CHECKPOINT: '{none}': No such file or directory"),
        ("piano {file} {none}", "CHECKPOINT: {file} is none of scripts/embed train"),
    ],
    "scripts.models.common.evaluate": [
        ("music --models {folder}", "--models: there is no folder {folder}/helium/embedded-music"),
        ("music --count 0", "--count: 0 is not at least 1"),
        ("music --config x", "--config: 'x' is not JSON: "),
        ("music --config []", "--config: '[]' is not a JSON object"),
        ("music --sound {file}", "--sound: '{file}': Not a directory"),
    ],
    "scripts.models.common.spectrogram": [
        ("{none} x.png", "SOUND.wav: '{none}': No such file or directory"),
        ("{file} {none}.png", "SOUND.wav: {file}: Format not recognised"),
        ("{file} {none}/x.png", "PICTURE.png: '{none}/x.png': No such file or directory"),
    ],
}


def test_a_wrong_argument_is_named_in_one_line(tmp_path: Path) -> None:
    places = {name: str(tmp_path / name) for name in ("file", "none", "folder", "resumed")}
    (tmp_path / "file").write_text("text")
    for name, content in (("folder", "other"), ("resumed", ".testnet")):
        (tmp_path / name).mkdir()
        (tmp_path / name / content).touch()
    cases = [
        (module, text.format(**places).split(), line.format(**places))
        for module, wrong in WRONG.items()
        for text, line in wrong
    ]
    command = [sys.executable, "-P", "-c", RUN_ALL, json.dumps([case[:2] for case in cases])]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout)
    assert len(ends) == len(cases)
    for (module, words, expected), (code, printed) in zip(cases, ends, strict=True):
        assert (code, printed.count("\n")) == (2, 1), (module, words, printed)
        assert printed.startswith(f"helium: {expected}"), (module, words)


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("fuzz --minutes x", "--minutes: 'x' is not a whole number"),
        ("fuzz --minutes", "--minutes: '' is not a whole number"),
        ("fuzz --target x", "--target: 'x' is none of json message task"),
        ("fuzz --x", "no such option: --x"),
        ("bench x", "'x' is no benchmark"),
        ("embed x", "'x' is no command"),
        ("setup --tests x", "'--tests x' is not --tests"),
    ],
)
def test_a_wrong_argument_of_a_shell_script_installs_nothing(command: str, line: str) -> None:
    name, *rest = command.split()
    done = subprocess.run(
        [ROOT / "scripts" / name, *rest],
        env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"helium: {line}")


def test_the_fuzzer_takes_the_name_of_every_parser() -> None:
    script = (ROOT / "scripts" / "fuzz").read_text()
    taken = script.partition('targets="')[2].partition('"')[0].replace("\\", "").split()
    assert sorted(taken) == sorted(["flags", "folders", *(parser.name for parser in PARSERS)])


@pytest.mark.parametrize("text", ["0.5", "60", "1e-3"])
def test_a_number_within_its_range_is_taken(text: str) -> None:
    assert arguments.number(0, 60)(text) == float(text)
