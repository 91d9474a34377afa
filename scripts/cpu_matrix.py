"""Run tasks natively and under emulated CPUs of other vendors, and compare the bytes.

The emulation is QEMU's user mode (Debian: apt install qemu-user). Programs see another vendor and
instruction set, but it is not other silicon. It is slow, so tasks are short. To make a short task
tell as much as a long one, the output of every layer is compared too: a last bit that differs there
seldom changes a token of a short task, but would change one of a longer task.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from executor.determinism import profile
from executor.errors import Abstained
from executor.job import Job, ModelRef
from executor.models.folders import EMBEDDED, ModelFolders
from executor.worker import supervisor
from protocol.manifest import outputs_of
from scripts import arguments, one_line

NATIVE = "native"
MANY_THREADS = "native, 2 threads"  # as the user's environment asks for
CPUS = ("Haswell", "Skylake-Client", "EPYC", "Broadwell")
LENGTH = {"max_new_tokens": 12, "do_sample": True}
PROMPT = "a slow sad piano in A minor"
# By name: the members that a precision adds to the args of text-to-music.
PRECISIONS: Mapping[str, Mapping[str, object]] = {
    "float32": {"dtype": "float32"},
    "float16": {"dtype": "float16"},
    "bfloat16": {"dtype": "bfloat16"},
    "8-bit": {"dtype": "float32", "quantize_bits": 8},
    "4-bit": {"dtype": "float32", "quantize_bits": 4},
}


def main() -> int:
    parser = arguments.Parser("scripts/cpu_matrix", own_help=False)
    parser.add_argument("--cpu", action="append")
    parser.add_argument("--case", action="append")
    parser.add_argument("--models", type=arguments.folder)
    parser.add_argument("--audio", type=arguments.file)
    parser.add_argument("--timeout", type=arguments.number(0), default=1800.0)
    parser.add_argument("--one")  # a run in a process of its own
    options = parser.parse_args()
    if options.one:
        print(json.dumps(execute(json.loads(options.one))))
        return 0
    try:
        cases = [
            describe_case(name, options.models, options.audio)
            for name in options.case or ["float32"]
        ]
    except Abstained as abstained:
        parser.error(f"--case: {abstained.detail}")
    except ValueError as error:
        parser.error(f"--case: {error}")
    if not (emulator := shutil.which("qemu-x86_64")):
        sys.exit("qemu-x86_64 is not installed (Debian: apt install qemu-user)")
    for name in options.cpu or ():
        if name not in _emulated(emulator):
            parser.error(f"--cpu: {name!r} is none of QEMU's (see {emulator} -cpu help)")
    rows = [NATIVE, MANY_THREADS, *(options.cpu or CPUS)]
    # One home for all, so that numba compiles once; its code is for a generic CPU.
    with tempfile.TemporaryDirectory() as home:
        environment = profile.child_environment(Path(home))
        return 0 if compare(rows, cases, emulator, environment, options.timeout) else 1


def _emulated(emulator: str) -> set[str]:
    """Return the names of the CPUs that QEMU emulates, and other words that it prints."""
    command = [emulator, "-cpu", "help"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def describe_case(case: str, models: Path | None, audio: Path | None) -> dict[str, object]:
    """Return the description of one run, as `execute` takes it.

    Raises `Abstained` for a model that is not there, ValueError for another wrong case.
    """
    name, _, precision = (f"{EMBEDDED}:{case}" if case in PRECISIONS else case).partition(":")
    folders = [str(models.resolve())] if models else []
    source = str(audio.resolve()) if audio else None
    args = PRECISIONS.get(precision or "float32")
    if args is None:
        raise ValueError(f"{precision!r} is none of {', '.join(PRECISIONS)}")
    config = ModelFolders([Path(text) for text in folders]).locate(name, "main") / "config.json"
    if audio is None and json.loads(config.read_text())["model_type"] == "pop2piano":
        raise ValueError(f"{case} needs --audio FILE")
    return {"case": case, "model": name, "args": args, "folders": folders, "audio": source}


def execute(case: Mapping[str, Any]) -> dict[str, object]:
    """Run one task in this process under the profile; return its hashes and its seconds."""
    import torch

    from executor.worker.backends.transformers import TransformersBackend
    from executor.worker.messages import JobDone
    from executor.worker.runner import JobRunner

    started_at = time.monotonic()
    profile.fix()
    layers = hashlib.sha256()

    def hash_output(module: Any, _: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and not next(module.children(), None):
            layers.update(output.detach().reshape(-1).view(torch.uint8).numpy())

    torch.nn.modules.module.register_module_forward_hook(hash_output)
    folders = ModelFolders([Path(folder) for folder in case["folders"]])
    progress, unread = Pipe()
    with progress, unread:
        runner = JobRunner(progress, folders, TransformersBackend())
        # Nobody reads them here; the manifest has their hashes.
        runner.deliver = lambda output: output.entry  # type: ignore[method-assign]
        result = runner.run(supervisor.job_message(job(case, folders)))
    hashes = []
    if isinstance(result, JobDone):
        hashes = [output["sha256"] for output in outputs_of(result.outcome)]
    return {
        "hash": hashlib.sha256("".join(hashes).encode()).hexdigest() if hashes else str(result),
        "layers": layers.hexdigest(),
        "seconds": round(time.monotonic() - started_at, 1),
    }


def job(case: Mapping[str, Any], folders: ModelFolders) -> Job:
    """Return the task: music from a prompt, or a cover where the model is a Pop2Piano."""
    folder = folders.locate(case["model"], "main")
    config = json.loads((folder / "config.json").read_text())
    model = ModelRef(case["model"], "main", folders.digest(folder))
    args = {"model": case["model"], "seed": 7, **case["args"]}
    if config["model_type"] != "pop2piano":
        steps = {"generation_config": LENGTH} if "musicgen" in config["model_type"] else {}
        return Job("task", "text-to-music", {"prompt": PROMPT, **args, **steps}, model)
    audio = Path(case["audio"])
    content = audio.read_bytes()
    source = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    generation = json.loads((folder / "generation_config.json").read_text())
    composer = min(generation["composer_to_feature_token"])
    return Job(
        "task", "pop2piano", {"audio": [source], "composer": composer, **args}, model, (audio,)
    )


def compare(
    rows: list[str],
    cases: list[dict[str, object]],
    emulator: str,
    environment: dict[str, str],
    limit: float,
) -> bool:
    """Print the table row by row; return whether every case gave the same bytes everywhere.

    A cell has the first 8 digits of the hashes of the outputs and of the layers, and the seconds.
    """
    print(f"{'':20}" + "".join(f"{case['case']!s:>28}" for case in cases))
    cells: dict[str, set[str]] = {str(case["case"]): set() for case in cases}
    for row in rows:
        print(f"{row:20}", end="", flush=True)
        results = run_row(row, cases, emulator, environment, limit)
        for case, result in zip(cases, results, strict=True):
            cell = f"{result['hash']!s:.8} {result.get('layers', '')!s:.8}"
            cells[str(case["case"])].add(cell)
            print(f"{cell} {result['seconds']:5.0f} s".rjust(28), end="", flush=True)
        print()
    for name, hashes in cells.items():
        print(f"{name}: {'equal' if len(hashes) == 1 else 'NOT equal'} on {len(rows)} CPUs")
    return all(len(hashes) == 1 for hashes in cells.values())


def run_row(
    row: str,
    cases: list[dict[str, object]],
    emulator: str,
    environment: dict[str, str],
    limit: float,
) -> Iterator[dict[str, Any]]:
    """Yield the result of each case on one CPU, in a fresh process each."""
    command = [sys.executable, "-P", "-m", "scripts.cpu_matrix", "--one"]
    if row not in (NATIVE, MANY_THREADS):
        command = [emulator, "-cpu", row, *command]
    if row == MANY_THREADS:
        os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "2"))
        environment = profile.child_environment(Path(environment["HOME"]))
    for case in cases:
        yield run_process([*command, json.dumps(case)], environment, limit)


def run_process(command: list[str], environment: dict[str, str], limit: float) -> dict[str, Any]:
    """Return what a run printed last, or its failure in place of a hash."""
    started_at = time.monotonic()
    try:
        process = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return {"hash": "timeout", "seconds": limit}
    if process.returncode == 0:
        return dict(json.loads(process.stdout.splitlines()[-1]))
    lines = process.stderr.strip().splitlines() or [f"exit {process.returncode}"]
    print(f"\n  {lines[-1]:.200}", file=sys.stderr)
    return {"hash": f"exit {process.returncode}", "seconds": time.monotonic() - started_at}


if __name__ == "__main__":
    one_line.run(main)
