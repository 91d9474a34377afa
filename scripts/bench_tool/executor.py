"""Measure the overhead of the executor and of its numeric profile over a plain pipeline.

All variants take turns within one run, each with its model loaded. The medians of wall time and of
processor time are printed; other programs on the machine disturb processor time less. The absolute
times are this machine's. The ratios are what can be compared.
"""

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
from executor.errors import Abstained, ModelRefused
from executor.job import Job, ModelRef
from executor.models.folders import EMBEDDED, ModelFolders
from executor.worker.supervisor import WorkerSupervisor
from scripts import arguments, one_line

PROMPT, SEED = "a slow sad piano in A minor", 7
# Seconds that a worker has to start.
START_TIMEOUT = 120.0

# The plain pipeline. For each line with tokens, seed and prompt it prints seconds and hash.
PLAIN_SCRIPT = """
import hashlib, json, sys, time
if sys.argv[2] == "profile":
    from executor.determinism import profile
    profile.fix()
import transformers
pipeline = transformers.pipeline("text-to-audio", model=sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    task = json.loads(line)
    started = time.perf_counter()
    transformers.set_seed(task["seed"])
    result = pipeline(task["prompt"], generate_kwargs={"max_new_tokens": task["tokens"]})
    seconds = time.perf_counter() - started
    sha256 = hashlib.sha256(result["audio"].astype("<f4").T.tobytes()).hexdigest()
    print(json.dumps({"seconds": seconds, "sha256": sha256}), flush=True)
"""

# The steps of a worker's start with the time after each. All processes share this clock.
START_SCRIPT = """
import sys, time
steps = [("spawn", time.monotonic())]
from pathlib import Path
from executor.determinism import profile, self_test
from executor.sandbox import confine
from executor.worker.runner import JobRunner
from executor.worker.backends.transformers import TransformersBackend
from multiprocessing import Pipe
connection, _ = Pipe()  # the sandbox allows no new one
confine.confine([Path(sys.argv[1])], None)
steps.append(("own modules, sandbox", time.monotonic()))
profile.fix()
steps.append(("import torch, profile", time.monotonic()))
from executor.tasks import text_to_music
steps.append(("import transformers", time.monotonic()))
from executor.models.folders import EMBEDDED, SHIPPED, ModelFolders
runner = JobRunner(connection, ModelFolders([]), TransformersBackend())
assert ModelFolders([]).digest(SHIPPED / EMBEDDED)
steps.append(("digest", time.monotonic()))
assert not self_test.check(runner.render)[1]
steps.append(("load, self-test", time.monotonic()))
import json, os
# As a worker ends: the sandbox does not allow what an interpreter does at its end.
os.write(1, json.dumps(steps).encode())
os._exit(0)
"""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Run:
    """One generation: wall time and processor time in seconds, and the hash of the audio."""

    wall: float
    cpu: float
    sha256: str


Generate = Callable[[int], Run]  # a number of tokens to a run
Runs = dict[str, list[Run]]  # by variant


def cpu_seconds(pid: int) -> float:
    """Return the processor time that all threads of a process have used so far."""
    # The clock id of clock_getcpuclockid(3).
    return time.clock_gettime((~pid << 3) | 2)


class PlainPipeline:
    """The plain script in a process of its own, with its model loaded."""

    def __init__(self, folder: Path, environment: Mapping[str, str], kind: str) -> None:
        """`kind` is "profile" to fix the numeric profile, else anything."""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", PLAIN_SCRIPT, str(folder), kind],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if self._read_line() != "ready":
            sys.exit(f"the plain script ({kind}) did not start")

    def generate(self, tokens: int) -> Run:
        """Generate once. The script measures the wall time itself."""
        used = cpu_seconds(self._process.pid)
        assert self._process.stdin
        task = {"tokens": tokens, "seed": SEED, "prompt": PROMPT}
        self._process.stdin.write(f"{json.dumps(task)}\n")
        self._process.stdin.flush()
        answer = json.loads(self._read_line())
        used = cpu_seconds(self._process.pid) - used
        return Run(answer["seconds"], used, answer["sha256"])

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()

    def _read_line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


def main() -> int:
    assert __doc__
    parser = arguments.Parser("scripts/bench executor", __doc__)
    parser.epilog = "Exit code 1 if the executor and the plain pipeline give different hashes."
    count = arguments.whole(1)
    parser.add_argument("--repeat", type=count, default=15, help="runs of each (default 15)")
    parser.add_argument(
        "--tokens", type=count, default=253, help="tokens of a long task (default 253, 5 seconds)"
    )
    parser.add_argument("--short", type=count, default=6, help="tokens of a short task (default 6)")
    parser.add_argument(
        "--starts",
        type=arguments.whole(0),
        default=3,
        help="cold starts of a worker (default 3, 0 for none)",
    )
    parser.add_argument("--models", type=arguments.folder, help="the models folder with --model")
    parser.add_argument(
        "--model",
        default=EMBEDDED,
        help=f"default {EMBEDDED}; scripts/build_small_model builds a larger one",
    )
    options = parser.parse_args()
    folders = [options.models.resolve()] if options.models else []
    try:
        models = ModelFolders(folders)
        models.digest(models.locate(options.model, "main"))
    except Abstained as abstained:
        parser.error(f"--model: {abstained.detail}")
    except ModelRefused as refused:
        parser.error(f"--model: {refused}")
    if options.starts:
        measure_starts(options.starts)
    return compare(options.model, folders, options.repeat, options.tokens, options.short)


def measure_starts(times: int) -> None:
    """Print the median time of each step of a worker's start, and of a whole start."""
    steps: dict[str, list[float]] = {}
    for _ in range(times):
        with tempfile.TemporaryDirectory() as home:
            for place in profile.PLACES.values():  # as for a worker, which cannot make them
                (Path(home) / place).mkdir(exist_ok=True)
            previous = time.monotonic()
            script = subprocess.run(
                [sys.executable, "-P", "-c", START_SCRIPT, home],
                env=profile.child_environment(Path(home)),
                stdout=subprocess.PIPE,
                check=True,
            )
            for name, reached in json.loads(script.stdout):
                steps.setdefault(name, []).append(reached - previous)
                previous = reached
            supervisor = WorkerSupervisor([], Path(home))
            seconds = supervisor.start(START_TIMEOUT).seconds
            steps.setdefault("whole start, until ready", []).append(seconds)
            supervisor.close()
    print(f"cold start, median of {times}")
    for name, measured in steps.items():
        print(f"  {name:34} {statistics.median(measured):8.2f} s")


def compare(model: str, folders: Sequence[Path], repeat: int, tokens: int, short: int) -> int:
    """Compare the variants on one model. Returns the exit code."""
    models = ModelFolders(folders)
    folder = models.locate(model, "main")
    reference = ModelRef(model, "main", models.digest(folder))
    with tempfile.TemporaryDirectory() as scratch:
        pinned = profile.child_environment(Path(scratch))
        unpinned = {name: value for name, value in pinned.items() if name not in profile.NUMERIC}
        supervisor = WorkerSupervisor(folders, Path(scratch))
        ready = supervisor.start(START_TIMEOUT)
        if not ready.ok:
            sys.exit(ready.reason)
        plain = {
            "plain, under the profile": PlainPipeline(folder, pinned, "profile"),
            "plain, unpinned, 1 thread": PlainPipeline(folder, unpinned | ONE_THREAD, "free"),
            f"plain, unpinned, {os.cpu_count()} threads": PlainPipeline(folder, unpinned, "free"),
        }
        variants: dict[str, Generate] = {
            "executor": lambda length: run_task(supervisor, reference, length),
            **{name: pipeline.generate for name, pipeline in plain.items()},
        }
        try:
            long_runs = take_turns(variants, tokens, repeat)
            short_runs = take_turns(dict(list(variants.items())[:2]), short, repeat)
        finally:
            supervisor.close()
            for pipeline in plain.values():
                pipeline.close()
    return report(model, tokens, short, repeat, long_runs, short_runs)


def run_task(supervisor: WorkerSupervisor, model: ModelRef, tokens: int) -> Run:
    """Run one task in the worker. The time includes the messages to and from it."""
    args = {
        "model": model.id,
        "prompt": PROMPT,
        "seed": SEED,
        "generation_config": {"max_new_tokens": tokens},
    }
    assert supervisor.pid
    used = time.process_time() + cpu_seconds(supervisor.pid)
    started = time.perf_counter()
    job = Job("task", "text-to-music", args, model)
    execution = supervisor.run(job, timeout=3600.0, progress=lambda _: None)
    seconds = time.perf_counter() - started
    used = time.process_time() + cpu_seconds(supervisor.pid) - used
    for path in execution.files:
        path.unlink()
    result: Any = execution.outcome["result"]
    return Run(seconds, used, str(result["outputs"][0]["sha256"]))


def take_turns(variants: Mapping[str, Generate], tokens: int, repeat: int) -> Runs:
    """Run the variants in turns, `repeat` times after a first turn that does not count."""
    runs: Runs = {name: [] for name in variants}
    for turn in range(repeat + 1):
        for name, generate in variants.items():
            run = generate(tokens)
            if turn:
                runs[name].append(run)
    return runs


def report(
    model: str, tokens: int, short: int, repeat: int, long_runs: Runs, short_runs: Runs
) -> int:
    """Print the table. Returns 1 if the hashes of executor and plain pipeline differ."""
    executor, plain, *_ = long_runs
    print(f"{model}, {tokens} tokens, warm, median of {repeat} in turns; ratios to {plain}")
    for name, runs in long_runs.items():
        pairs = list(zip(runs, long_runs[plain], strict=True))
        wall, cpu = (
            statistics.median(r.wall for r in runs),
            statistics.median(r.cpu for r in runs),
        )
        wall_ratio = statistics.median(run.wall / base.wall for run, base in pairs)
        cpu_ratio = statistics.median(run.cpu / base.cpu for run, base in pairs)
        hashes = ", ".join(sorted({run.sha256[:12] for run in runs}))
        times = f"{wall:8.3f} s {wall_ratio:7.3f}  CPU {cpu:8.3f} s {cpu_ratio:7.3f}"
        print(f"  {name:30} {times}  {hashes}")
    pairs = list(zip(short_runs[executor], short_runs[plain], strict=True))
    wall = 1000 * statistics.median(run.wall - base.wall for run, base in pairs)
    cpu = 1000 * statistics.median(run.cpu - base.cpu for run, base in pairs)
    print(f"  a task of {short} tokens: {wall:.1f} ms more, CPU {cpu:.1f} ms more")
    equal = all(
        len({run.sha256 for run in runs[executor] + runs[plain]}) == 1
        for runs in (long_runs, short_runs)
    )
    print(f"  hashes of executor and plain pipeline: {'equal' if equal else 'NOT equal'}")
    return 0 if equal else 1


if __name__ == "__main__":
    one_line.run(main)
