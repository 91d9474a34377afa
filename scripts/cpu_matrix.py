"""Run tasks natively and under emulated CPUs of other makes, and compare the bytes.

The emulation is QEMU's user mode (Debian: apt install qemu-user): another vendor and instruction
set as programs see them, though not another piece of silicon. It is slow, so tasks are short; so
that a short one tells as much, what every layer of the model computed is compared too: a last bit
that differs there seldom changes a token, but in a longer task it will.
"""

import argparse
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
from executor.job import Job, ModelRef
from executor.models.folders import EMBEDDED, ModelFolders
from executor.worker import supervisor

NATIVE = "native"
MANY_THREADS = "native, 2 threads"  # as the user's environment asks for
CPUS = ("Haswell", "Skylake-Client", "EPYC", "Broadwell")
LENGTH = {"max_new_tokens": 12, "do_sample": True}
PROMPT = "a slow sad piano in A minor"
# name: what it adds to the task's args. The precisions of text-to-music.
PRECISIONS: Mapping[str, Mapping[str, object]] = {
    "float32": {"dtype": "float32"},
    "float16": {"dtype": "float16"},
    "bfloat16": {"dtype": "bfloat16"},
    "8-bit": {"dtype": "float32", "quantize_bits": 8},
    "4-bit": {"dtype": "float32", "quantize_bits": 4},
}


def main() -> int:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", action="append", metavar="NAME", help=f"default: {CPUS}")
    parser.add_argument(
        "--case",
        action="append",
        metavar="NAME",
        help=f"one of {', '.join(PRECISIONS)}, or an id of --models, which may be followed by "
        ":PRECISION (tiny/bark:float16); default: float32",
    )
    parser.add_argument("--models", type=Path, help="as scripts/build_tiny_models made it")
    parser.add_argument("--audio", type=Path, help="the input of a Pop2Piano model's case")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds for one run")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(executed(json.loads(chosen.one))))
        return 0
    if not (emulator := shutil.which("qemu-x86_64")):
        sys.exit("qemu-x86_64 is not installed (Debian: apt install qemu-user)")
    cases = [order(name, chosen.models, chosen.audio) for name in chosen.case or ["float32"]]
    rows = [NATIVE, MANY_THREADS, *(chosen.cpu or CPUS)]
    # One home for all: what numba compiled, for no CPU in particular, is compiled once.
    with tempfile.TemporaryDirectory() as home:
        environment = profile.child_environment(Path(home))
        return 0 if compared(rows, cases, emulator, environment, chosen.timeout) else 1


def order(case: str, models: Path | None, audio: Path | None) -> dict[str, object]:
    """What one run is told."""
    name, _, precision = (f"{EMBEDDED}:{case}" if case in PRECISIONS else case).partition(":")
    folders = [str(models.resolve())] if models else []
    source = str(audio.resolve()) if audio else None
    args = PRECISIONS[precision or "float32"]
    return {"case": case, "model": name, "args": args, "folders": folders, "audio": source}


def executed(told: Mapping[str, Any]) -> dict[str, object]:
    """Run one task in this process, under the profile; what it came to and the hashes of it."""
    import torch

    from executor.worker.main import JobRunner

    began = time.monotonic()
    profile.fix()
    inside = hashlib.sha256()

    def heard(module: Any, _: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and not next(module.children(), None):
            inside.update(output.detach().reshape(-1).view(torch.uint8).numpy())

    torch.nn.modules.module.register_module_forward_hook(heard)
    folders = ModelFolders([Path(folder) for folder in told["folders"]])
    ours, theirs = Pipe()
    with tempfile.TemporaryDirectory() as scratch, ours, theirs:
        worker = JobRunner(ours, folders)
        said = worker.run(supervisor.job_message(job(told, folders), Path(scratch) / "out"))
    outcome = said.get("outcome") or {"abstained": said.get("detail")}
    outputs = outcome.get("result", {}).get("outputs", [])
    hashes = [output["sha256"] for output in outputs]
    return {
        "hash": hashlib.sha256("".join(hashes).encode()).hexdigest() if hashes else str(outcome),
        "inside": inside.hexdigest(),
        "seconds": round(time.monotonic() - began, 1),
    }


def job(told: Mapping[str, Any], folders: ModelFolders) -> Job:
    """The task: a melody from words, or from a recording where the model is a Pop2Piano."""
    folder = folders.locate(told["model"], "main")
    config = json.loads((folder / "config.json").read_text())
    model = ModelRef(told["model"], "main", folders.digest(folder))
    args = {"model": told["model"], "seed": 7, **told["args"]}
    if config["model_type"] != "pop2piano":
        steps = {"generation_config": LENGTH} if "musicgen" in config["model_type"] else {}
        return Job("task", "text-to-music", {"prompt": PROMPT, **args, **steps}, model)
    audio = Path(told["audio"])
    content = audio.read_bytes()
    source = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    generation = json.loads((folder / "generation_config.json").read_text())
    composer = min(generation["composer_to_feature_token"])
    return Job(
        "task", "pop2piano", {"audio": [source], "composer": composer, **args}, model, (audio,)
    )


def compared(
    rows: list[str],
    cases: list[dict[str, object]],
    emulator: str,
    environment: dict[str, str],
    limit: float,
) -> bool:
    """Print the table as it grows; whether every case gave the same bytes everywhere.

    Of each run the first 8 digits of the outputs' hash and of what is inside, and its seconds.
    """
    print(f"{'':20}" + "".join(f"{case['case']!s:>28}" for case in cases))
    found: dict[str, set[str]] = {str(case["case"]): set() for case in cases}
    for row in rows:
        print(f"{row:20}", end="", flush=True)
        for case, ended in zip(cases, ran(row, cases, emulator, environment, limit), strict=True):
            shown = f"{ended['hash']!s:.8} {ended.get('inside', '')!s:.8}"
            found[str(case["case"])].add(shown)
            print(f"{shown} {ended['seconds']:5.0f} s".rjust(28), end="", flush=True)
        print()
    for name, hashes in found.items():
        print(f"{name}: {'equal' if len(hashes) == 1 else 'NOT equal'} on {len(rows)} CPUs")
    return all(len(hashes) == 1 for hashes in found.values())


def ran(
    row: str,
    cases: list[dict[str, object]],
    emulator: str,
    environment: dict[str, str],
    limit: float,
) -> Iterator[dict[str, Any]]:
    """Each case on one CPU, in a fresh process; a failure is told in place of a hash."""
    command = [sys.executable, "-P", "-m", "scripts.cpu_matrix", "--one"]
    if row not in (NATIVE, MANY_THREADS):
        command = [emulator, "-cpu", row, *command]
    if row == MANY_THREADS:
        os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "2"))
        environment = profile.child_environment(Path(environment["HOME"]))
    for case in cases:
        yield said([*command, json.dumps(case)], environment, limit)


def said(command: list[str], environment: dict[str, str], limit: float) -> dict[str, Any]:
    """What a run printed last, or how it failed."""
    began = time.monotonic()
    try:
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return {"hash": "timeout", "seconds": limit}
    if ended.returncode == 0:
        return dict(json.loads(ended.stdout.splitlines()[-1]))
    lines = ended.stderr.strip().splitlines() or [f"exit {ended.returncode}"]
    print(f"\n  {lines[-1]:.200}", file=sys.stderr)
    return {"hash": f"exit {ended.returncode}", "seconds": time.monotonic() - began}


if __name__ == "__main__":
    sys.exit(main())
