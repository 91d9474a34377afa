"""What the executor adds to the pipeline that it runs, and what its profile costs.

Everything that is compared runs in turns within one call, each with its model resident, and medians
are told: of the time that passed, and of the processors' time spent, which other programs on the
machine disturb less. Absolute seconds are this machine's; the ratios are what is worth keeping.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executor.determinism import profile
from executor.job import Job, ModelRef
from executor.models.folders import EMBEDDED, ModelFolders
from executor.worker import supervisor

PROMPT, SEED = "a slow sad piano in A minor", 7
START_SECONDS = 120.0

# transformers alone: told tokens, seed and prompt, it answers with the seconds and the hash.
PLAIN = """
import hashlib, json, sys, time
if sys.argv[2] == "profile":
    from executor.determinism import profile
    profile.fix()
import transformers
pipeline = transformers.pipeline("text-to-audio", model=sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    told = json.loads(line)
    began = time.perf_counter()
    transformers.set_seed(told["seed"])
    made = pipeline(told["prompt"], generate_kwargs={"max_new_tokens": told["tokens"]})
    seconds = time.perf_counter() - began
    sha256 = hashlib.sha256(made["audio"].astype("<f4").T.tobytes()).hexdigest()
    print(json.dumps({"seconds": seconds, "sha256": sha256}), flush=True)
"""

# A worker's start, step by step: the clock is the same in all processes.
STEPS = """
import sys, time
told = [("spawn", time.monotonic())]
from pathlib import Path
from executor.determinism import profile
from executor.determinism import self_test as selftest
from executor.sandbox import confine as sandbox
from executor.worker import main as worker
sandbox.confine([], Path(sys.argv[1]), None)
told.append(("our own modules, sandbox", time.monotonic()))
profile.fix()
told.append(("import torch, profile", time.monotonic()))
from executor.tasks import text_to_music
told.append(("import transformers", time.monotonic()))
from executor.models.folders import EMBEDDED, SHIPPED, ModelFolders
from multiprocessing import Pipe
ours, theirs = Pipe()
one = worker.JobRunner(ours, ModelFolders([]))
folder = SHIPPED / EMBEDDED
one._warm("text-to-music", folder, one._folders.digest(folder), "float32", None)
told.append(("digest and load", time.monotonic()))
assert not selftest.check(one._render)[1]
told.append(("self-test", time.monotonic()))
import json
print(json.dumps(told))
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One generation: seconds that passed, seconds of processors, the SHA-256 of the sound."""

    wall: float
    cpu: float
    sha256: str


def cpu_seconds(pid: int) -> float:
    """What all threads of a process have used so far; the clock is clock_getcpuclockid's."""
    return time.clock_gettime((~pid << 3) | 2)


class Plain:
    """The plain script, its model resident, in a process under some environment."""

    def __init__(self, folder: Path, environment: Mapping[str, str], kind: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", PLAIN, str(folder), kind],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if self._said() != "ready":
            sys.exit(f"the plain script ({kind}) did not start")

    def __call__(self, tokens: int) -> Run:
        """Generate once; the time that passed is measured inside."""
        used = cpu_seconds(self._process.pid)
        assert self._process.stdin
        told = {"tokens": tokens, "seed": SEED, "prompt": PROMPT}
        self._process.stdin.write(f"{json.dumps(told)}\n")
        self._process.stdin.flush()
        answer = json.loads(self._said())
        used = cpu_seconds(self._process.pid) - used
        return Run(answer["seconds"], used, answer["sha256"])

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()

    def _said(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


def main() -> int:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=15, help="times each, default 15")
    parser.add_argument("--tokens", type=int, default=253, help="253 tokens are 5 seconds of audio")
    parser.add_argument("--short", type=int, default=6, help="tokens of the shortest task")
    parser.add_argument("--starts", type=int, default=3, help="cold starts, default 3")
    parser.add_argument("--models", type=Path, help="a models folder, for --model")
    parser.add_argument(
        "--model", default=EMBEDDED, help="default: the embedded one; scripts/build_small_model"
    )
    chosen = parser.parse_args()
    folders = [chosen.models.resolve()] if chosen.models else []
    if chosen.starts:
        cold(chosen.starts)
    return warm(chosen.model, folders, chosen.repeat, chosen.tokens, chosen.short)


def cold(times: int) -> None:
    """Print how long the steps of a worker's start take, and the whole as a pool sees it."""
    steps: dict[str, list[float]] = {}
    for _ in range(times):
        with tempfile.TemporaryDirectory() as home:
            began = time.monotonic()
            told = subprocess.run(
                [sys.executable, "-P", "-c", STEPS, home],
                env=profile.child_environment(Path(home)),
                stdout=subprocess.PIPE,
                check=True,
            )
            for name, at in json.loads(told.stdout):
                steps.setdefault(name, []).append(at - began)
                began = at
            running = supervisor.WorkerSupervisor([], Path(home))
            steps.setdefault("whole, to WorkerStatus", []).append(
                running.start(START_SECONDS).seconds
            )
            running.close()
    print(f"cold start, median of {times}")
    for name, seconds in steps.items():
        print(f"  {name:34} {statistics.median(seconds):8.2f} s")


def warm(model: str, folders: Sequence[Path], repeat: int, tokens: int, short: int) -> int:
    """Print the comparison of one model; 1 if the hashes differ."""
    found = ModelFolders(folders)
    folder = found.locate(model, "main")
    reference = ModelRef(model, "main", found.digest(folder))
    with tempfile.TemporaryDirectory() as scratch:
        pinned = profile.child_environment(Path(scratch))
        free = {name: value for name, value in pinned.items() if name not in profile.NUMERIC}
        running = supervisor.WorkerSupervisor(folders, Path(scratch))
        ready = running.start(START_SECONDS)
        if not ready.ok:
            sys.exit(ready.reason)
        plain = Plain(folder, pinned, "profile")
        runs: dict[str, Callable[[int], Run]] = {
            "ours": lambda length: ours(running, reference, length),
            "plain, under the profile": plain,
            "plain, unpinned, 1 thread": (one := Plain(folder, free | ONE, "free")),
            f"plain, unpinned, {os.cpu_count()} threads": (all_ := Plain(folder, free, "free")),
        }
        try:
            long = in_turns(runs, tokens, repeat)
            brief = in_turns(dict(list(runs.items())[:2]), short, repeat)
        finally:
            running.close()
            for each in (plain, one, all_):
                each.end()
    return report(model, tokens, short, repeat, long, brief)


ONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
Timed = dict[str, list[Run]]


def ours(running: supervisor.WorkerSupervisor, model: ModelRef, tokens: int) -> Run:
    """One task through the pool, from the order to the file's path."""
    args = {
        "model": model.id,
        "prompt": PROMPT,
        "seed": SEED,
        "generation_config": {"max_new_tokens": tokens},
    }
    assert running.pid
    used, began = time.process_time() + cpu_seconds(running.pid), time.perf_counter()
    job = Job("task", "text-to-music", args, model)
    made = running.run(job, timeout=3600.0, progress=lambda _: None)
    seconds = time.perf_counter() - began
    used = time.process_time() + cpu_seconds(running.pid) - used
    for path in made.files:
        path.unlink()
    result: Any = made.outcome["result"]
    return Run(seconds, used, str(result["outputs"][0]["sha256"]))


def in_turns(runs: Mapping[str, Callable[[int], Run]], tokens: int, repeat: int) -> Timed:
    """Each in turn, `repeat` times after one that does not count."""
    found: Timed = {name: [] for name in runs}
    for turn in range(repeat + 1):
        for name, run in runs.items():
            made = run(tokens)
            if turn:
                found[name].append(made)
    return found


def report(model: str, tokens: int, short: int, repeat: int, long: Timed, brief: Timed) -> int:
    """Print the table; 1 if ours and the plain pipeline's hashes differ."""
    ours, plain, *_ = long
    print(f"{model}, {tokens} tokens, warm, median of {repeat} in turns; ratios to {plain}")
    for name, runs in long.items():
        wall, cpu = (statistics.median(seconds) for seconds in zip(*times(runs), strict=True))
        pairs = [
            zip(*pair, strict=True) for pair in zip(times(runs), times(long[plain]), strict=True)
        ]
        ratios = [[one / other for one, other in pair] for pair in pairs]
        by_wall, by_cpu = (statistics.median(each) for each in zip(*ratios, strict=True))
        shown = ", ".join(sorted({run.sha256[:12] for run in runs}))
        print(f"  {name:30} {wall:8.3f} s {by_wall:7.3f}  CPU {cpu:8.3f} s {by_cpu:7.3f}  {shown}")
    pairs_ = list(zip(times(brief[ours]), times(brief[plain]), strict=True))
    wall, cpu = (
        1000 * statistics.median(one[kind] - other[kind] for one, other in pairs_)
        for kind in (0, 1)
    )
    print(f"  a task of {short} tokens: {wall:.1f} ms more, CPU {cpu:.1f} ms more")
    same = all(
        len({run.sha256 for run in timed[ours] + timed[plain]}) == 1 for timed in (long, brief)
    )
    print(f"  ours and the plain pipeline's hashes: {'equal' if same else 'NOT equal'}")
    return 0 if same else 1


def times(runs: Sequence[Run]) -> list[tuple[float, float]]:
    """The two times of each run."""
    return [(run.wall, run.cpu) for run in runs]


if __name__ == "__main__":
    sys.exit(main())
