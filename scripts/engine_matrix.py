"""Compute a song with the engine on every processor that is at hand, and compare the hashes."""

import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from executor.engine.matrices import Kind
from executor.engine.music import MusicModel
from executor.models.folders import EMBEDDED, SHIPPED
from scripts import arguments, one_line
from tests.support.engine_image import song_image

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "executor/engine/csrc"
PROGRAM = ROOT / "tests/support/engine_run.c"
# As CMakeLists.txt has them, but for what a program needs: GNU's names of POSIX functions.
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-pthread", "-static")
PROMPT, SEED = "a slow sad piano in A minor", 7
CPUS = ("Haswell", "Skylake-Client", "EPYC")
RESULTS = ("prompt", "tokens", "logits", "replayed logits", "waveform")


def main() -> int:
    parser = arguments.Parser("scripts/engine_matrix", own_help=False)
    parser.add_argument("--steps", type=arguments.whole(8, 500), default=24)
    parser.add_argument("--cc", default="gcc")
    parser.add_argument("--cross", default="aarch64-linux-gnu-gcc")
    parser.add_argument("--qemu", type=arguments.folder)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = list(_runs(Path(folder), options))
        alike = True
        for kind in Kind:
            image = Path(folder, f"{kind.name}.image")
            model = MusicModel(SHIPPED / EMBEDDED, kind)
            request = model.request(PROMPT, [SEED], {"max_new_tokens": options.steps})
            image.write_bytes(song_image(model, request))
            alike &= compare(kind, image, runs)
    return 0 if alike else 1


def _runs(folder: Path, options: Any) -> list[tuple[str, list[str]]]:
    """Return the commands that run the program, by what they run it on."""
    runs = []
    native = {"x86_64": ("x86-64-v3", "x86-64"), "aarch64": ("armv8-a",)}[platform.machine()]
    for march in native:
        program = build(folder / march, [*shlex.split(options.cc), f"-march={march}"], march)
        runs.append((march, [str(program)]))
        emulator = _tool("qemu-x86_64", options.qemu)
        if march == "x86-64-v3" and emulator:
            runs += [(f"{march}, {cpu}", [emulator, "-cpu", cpu, str(program)]) for cpu in CPUS]
    emulator, cross = _tool("qemu-aarch64", options.qemu), shlex.split(options.cross)
    if native[0] != "armv8-a" and emulator and shutil.which(cross[0]):
        program = build(folder / "aarch64", cross, "aarch64")
        runs.append(("aarch64, emulated", [emulator, str(program)]))
    elif native[0] != "armv8-a":
        print("aarch64 is left out: apt install qemu-user gcc-aarch64-linux-gnu", file=sys.stderr)
    return runs


def _tool(name: str, folder: Path | None) -> str | None:
    return shutil.which(name, path=None if folder is None else str(folder))


def build(program: Path, compiler: list[str], instruction_set: str) -> Path:
    """Compile the program that runs an image; return its path."""
    sources = [PROGRAM, *sorted(CSRC.glob("*.c"))]
    define = f'-DHELIUM_INSTRUCTION_SET="{instruction_set}"'
    command = [*compiler, *FLAGS, define, "-I", CSRC, *sources, "-o", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{compiler[0]} does not compile the engine: {done.stderr.strip()[:400]}")
    return program


def compare(kind: Kind, image: Path, runs: list[tuple[str, list[str]]]) -> bool:
    """Run an image in all ways, print a line for each, and return whether all hashes are equal."""
    results = {}
    for name, command in runs:
        for threads in ("1", "2"):
            done = subprocess.run(
                [*command, str(image), threads], capture_output=True, text=True, check=False
            )
            results[f"{name}, {threads} threads"] = done.stdout
    first = next(iter(results.values()))
    complete = all(f"{name} " in first for name in RESULTS)
    for name, printed in results.items():
        verdict = "equal" if complete and printed == first else "DIFFERS"
        print(f"{kind.name.lower():9} {name:36} {verdict}")
    hashes = dict(line.rsplit(" ", 1) for line in first.splitlines())
    print(f"{kind.name.lower():9} " + ", ".join(f"{key} {hashes[key]}" for key in hashes))
    replayed = hashes.get("logits") == hashes.get("replayed logits")
    return complete and replayed and all(printed == first for printed in results.values())


if __name__ == "__main__":
    one_line.run(main)
