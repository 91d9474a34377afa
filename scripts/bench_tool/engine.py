"""Compare the engine with the stock `transformers.pipeline`, and with the speed of memory.

Everything takes turns within one run: for each number of threads, the stock pipeline makes a song,
each precision of the engine makes one of the same length and checks it by replay, and the bound is
read. Medians are printed. The absolute times are this machine's; the ratios are what can be
compared. No time is asserted. A process of its own runs the stock pipeline with each number of
threads, each precision of the engine, and the bound, so that peaks of memory and torch's threads
do not mix. Each keeps its model loaded.

  song      prompt to waveform, wall and processor time, divided by those of the stock pipeline
  step      the decoder alone. Stock's step is its song without the text encoder and the codec
  bound     the bytes of the weights that a step reads, read once, with eight streams a thread
  text      the text encoder, ms a prompt
  codec     the codec's decoder, ms a token of the song
  replay    a step of the check of all tokens in one pass, tokens to logits; "with codec" adds the
            codec's decoding. Both are divided by stock's step
  together  sequences of one task, and tasks of which the last is half as long as the first, each
            together, divided by one after the other
  memory    the peak beyond the weights, in percent of their size, without the cache of keys and
            values, which is printed beside it. The size is that of the converted weights of text
            encoder and decoder, or of the file if none are
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executor.errors import Abstained
from executor.models.folders import EMBEDDED, ModelFolders
from scripts import arguments, one_line
from scripts.bench_tool.engine_worker import KINDS
from scripts.bench_tool.output import progress

SMALL = "random/small"
SHAPES = {"small": SMALL, "embedded": EMBEDDED}
# Precisions whose sequences run together, and tokens of the turn that does not count.
BATCH_KINDS, WARM_TOKENS = ("float32", "int8"), 8
ROOT = Path(__file__).resolve().parents[2]

Samples = dict[tuple[str, int], list[Any]]  # by what is measured, and threads


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured."""

    folder: Path
    kinds: Sequence[str]
    threads: Sequence[int]
    tokens: int
    rounds: int
    sequences: Sequence[int]


class Worker:
    """A process of `engine_worker`."""

    def __init__(self, *part: str, **variables: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "scripts.bench_tool.engine_worker", *part],
            env={**os.environ, "HF_HUB_OFFLINE": "1", **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # transformers warns of the shipped model's configuration, and shows how it loads.
            stderr=subprocess.DEVNULL if part[0] == "stock" else None,
            text=True,
        )
        self._name = part[0]

    def answer(self) -> Any:
        """Return the next answer; the first one says that the process is ready."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"the process of {self._name} ended")
        return json.loads(line)

    def call(self, method: str, **values: Any) -> Any:
        """Call a method and return its answer."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"method": method, "arguments": values}) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()


def main() -> int:
    assert __doc__
    parser = arguments.Parser("scripts/bench engine", __doc__)
    parser.epilog = (
        "Exit code 1 if bytes differ: over rounds or threads, in replay, or of sequences together."
    )
    whole = arguments.whole
    parser.add_argument(
        "--shape", choices=SHAPES, default="embedded",
        help="the shape of musicgen-small with random weights (2.4 GB), or the shipped model"
        " (default embedded)",
    )  # fmt: skip
    parser.add_argument(
        "--models", type=arguments.folder,
        help="the models folder with random/small (default: build it in a temporary folder)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=KINDS, nargs="+", default=list(KINDS), help="default: all"
    )
    parser.add_argument(
        "--threads", type=whole(1, 64), nargs="+", default=[1, 2], help="default 1 2"
    )
    parser.add_argument(
        "--tokens", type=whole(8, 2000), default=128, help="tokens of a song (default 128)"
    )
    parser.add_argument(
        "--rounds", type=whole(1), default=5, help="turns of each, after a short one (default 5)"
    )
    parser.add_argument(
        "--sequences", type=whole(2, 16), nargs="*", default=[2, 4],
        help="how many run together, for float32 and int8 (default 2 4; no number: none)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one document")
    parser.add_argument(
        "--plot", type=arguments.new_file, metavar="FILE.svg", help="draw steps beside their bounds"
    )
    options = parser.parse_args()
    if options.plot and options.plot.suffix != ".svg":
        parser.error(f"--plot: '{options.plot}' does not end in .svg")
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(model_folder(options.shape, options.models))
        except Abstained as abstained:
            parser.error(f"--models: {abstained.detail}")
        plan = Plan(
            folder, options.precision, options.threads, options.tokens, options.rounds,
            options.sequences,
        )  # fmt: skip
        samples, sizes, memory = measure(plan)
    document = summary(plan, samples, sizes, memory)
    document["shape"] = options.shape
    if options.plot:
        options.plot.write_text(plot(document))
    print(json.dumps(document) if options.json else "\n".join(lines(document)))
    return 0 if document["equal"] else 1


@contextmanager
def model_folder(shape: str, models: Path | None) -> Iterator[Path]:
    """Give the folder of a shape's model. Raises `Abstained` if `models` has none."""
    folders = [models.resolve()] if models else []
    if shape == "embedded" or models:
        yield ModelFolders(folders).locate(SHAPES[shape], "main")
        return
    with tempfile.TemporaryDirectory() as folder:
        progress(f"building {SMALL}")
        command = [sys.executable, "-P", "-m", "scripts.build_small_model", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        yield Path(folder) / SMALL


def measure(plan: Plan) -> tuple[Samples, dict[str, int], dict[str, Any]]:
    """Let all take turns. Returns the samples, the bytes of a step, and the memory."""
    samples: Samples = {}
    with ExitStack() as stack:

        def start(*part: str, **variables: str) -> Worker:
            worker = Worker(*part, **variables)
            stack.callback(worker.close)
            progress(f"starting {' '.join(part)}")
            worker.answer()
            return worker

        stocks = {
            threads: start("stock", str(plan.folder), OMP_NUM_THREADS=f"{threads}")
            for threads in plan.threads
        }
        engines = {kind: start("engine", str(plan.folder), kind) for kind in plan.kinds}
        sizes = {kind: int(engine.call("step_bytes")) for kind, engine in engines.items()}
        # Before anything else has run in these processes: what was freed would count.
        memory = {
            kind: engine.call("memory", threads=plan.threads[-1], tokens=plan.tokens)
            for kind, engine in engines.items()
        }
        reader = start("reader", str(max(sizes.values())))
        began = time.monotonic()
        for number in range(plan.rounds + 1):
            for threads in plan.threads:
                round_samples = turn(plan, number, threads, stocks[threads], engines, reader, sizes)
                if number:
                    for name, sample in round_samples.items():
                        samples.setdefault((name, threads), []).append(sample)
            seconds = time.monotonic() - began
            progress(f"round {number} of {plan.rounds} done after {seconds:.0f} s")
    return samples, sizes, memory


def turn(
    plan: Plan,
    number: int,
    threads: int,
    stock: Worker,
    engines: Mapping[str, Worker],
    reader: Worker,
    sizes: Mapping[str, int],
) -> dict[str, Any]:
    """Measure everything once with one number of threads; turn 0 is short."""
    tokens = plan.tokens if number else WARM_TOKENS
    samples = {"stock": stock.call("song", tokens=tokens)}
    for kind, engine in engines.items():
        samples[kind] = engine.call("song", threads=threads, tokens=tokens)
        samples[f"bound {kind}"] = reader.call("read", threads=threads, size=sizes[kind])
    for kind in BATCH_KINDS:
        if kind in engines and plan.sequences and number:
            samples[f"batch {kind}"] = engines[kind].call(
                "batch", threads=threads, tokens=tokens, sizes=plan.sequences
            )
    return samples


def summary(
    plan: Plan, samples: Samples, sizes: Mapping[str, int], memory: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the medians and ratios as one document."""
    document: dict[str, Any] = {
        "tokens": plan.tokens, "rounds": plan.rounds, "stock": [], "engine": [], "memory": memory,
        "equal": True,
    }  # fmt: skip
    for threads in plan.threads:
        stock = samples["stock", threads]
        document["stock"].append(
            {
                "threads": threads,
                "song_s": statistics.median(one["song"]["wall"] for one in stock),
                "song_cpu_s": statistics.median(one["song"]["cpu"] for one in stock),
                "step_ms": 1000 * statistics.median(one["decoder"] for one in stock) / plan.tokens,
            }
        )
        for kind in plan.kinds:
            entry = {"precision": kind, "threads": threads, "step_bytes": sizes[kind]}
            batches = samples.get((f"batch {kind}", threads), [])
            document["engine"].append(
                entry
                | ratios(samples[kind, threads], stock, plan.tokens)
                | {
                    "bound_ms": 1000
                    * statistics.median(one["wall"] for one in samples[f"bound {kind}", threads]),
                    "together": together(batches),
                    "tasks_together": together(batches, "tasks_together", "tasks_alone"),
                }
            )
            document["equal"] &= all(
                size["equal"] and size["tasks_equal"]
                for batch in batches
                for size in batch.values()
            ) and all(one["replay_equal"] for one in samples[kind, threads])
    for kind in plan.kinds:
        songs = [one["sha256"] for threads in plan.threads for one in samples[kind, threads]]
        document["equal"] &= len(set(songs)) == 1
    return document


def ratios(
    songs: Sequence[Mapping[str, Any]], stock: Sequence[Mapping[str, Any]], tokens: int
) -> dict[str, float]:
    """Return the figures of one precision; each ratio is the median of those of the rounds."""
    pairs = list(zip(songs, stock, strict=True))
    middle = statistics.median

    def milliseconds(part: str) -> float:
        return 1000 * middle(song[part]["wall"] for song in songs)

    return {
        "song_s": middle(song["song"]["wall"] for song in songs),
        "song_ratio": middle(song["song"]["wall"] / base["song"]["wall"] for song, base in pairs),
        "song_cpu_ratio": middle(song["song"]["cpu"] / base["song"]["cpu"] for song, base in pairs),
        "step_ms": milliseconds("decoder") / tokens,
        "step_ratio": middle(song["decoder"]["wall"] / base["decoder"] for song, base in pairs),
        "text_ms": milliseconds("text"),
        "codec_ms": milliseconds("codec") / tokens,
        "replay_ms": milliseconds("replay") / tokens,
        "replay_ratio": middle(song["replay"]["wall"] / base["decoder"] for song, base in pairs),
        "replay_codec_ratio": middle(
            (song["replay"]["wall"] + song["codec"]["wall"]) / base["decoder"]
            for song, base in pairs
        ),
        "tokens_per_second": middle(tokens / song["song"]["wall"] for song in songs),
        "real_time": middle(song["seconds"] / song["song"]["wall"] for song in songs),
    }


def together(
    batches: Sequence[Mapping[str, Any]], joint: str = "together", alone: str = "alone"
) -> dict[str, float]:
    """Return the time of songs together divided by one after the other, by their number."""
    return {
        size: statistics.median(one[size][joint] / one[size][alone] for one in batches)
        for size in (batches[0] if batches else ())
    }


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tables."""
    yield (
        f"{document['shape']}, songs of {document['tokens']} tokens, medians of"
        f" {document['rounds']} rounds in turns; ratios to the stock pipeline"
    )
    for stock in document["stock"]:
        yield (
            f"  stock, threads {stock['threads']}: song {stock['song_s']:.3f} s,"
            f" CPU {stock['song_cpu_s']:.3f} s, step {stock['step_ms']:.2f} ms"
        )
    yield (
        "  precision threads |   song s  ratio    CPU | step ms  ratio  bound ms |"
        " text ms  codec ms | replay ms  ratio  with codec | tokens/s  real time"
    )
    for entry in document["engine"]:
        yield (
            f"  {entry['precision']:9} {entry['threads']:7} | {entry['song_s']:8.3f}"
            f" {entry['song_ratio']:6.3f} {entry['song_cpu_ratio']:6.3f} |"
            f" {entry['step_ms']:7.2f} {entry['step_ratio']:6.3f} {entry['bound_ms']:9.2f} |"
            f" {entry['text_ms']:7.2f} {entry['codec_ms']:9.3f} |"
            f" {entry['replay_ms']:9.2f} {entry['replay_ratio']:6.3f}"
            f" {entry['replay_codec_ratio']:11.3f} |"
            f" {entry['tokens_per_second']:8.1f} {entry['real_time']:10.2f}"
        )
    for entry in document["engine"]:
        for size, ratio in entry["together"].items():
            yield (
                f"  {size} sequences together, {entry['precision']}, threads {entry['threads']}:"
                f" {ratio:.3f} of one after the other; tasks {entry['tasks_together'][size]:.3f}"
            )
    for kind, memory in document["memory"].items():
        share = (memory["beyond"] - memory["cache"]) / memory["weights"]
        yield (
            f"  memory, {kind}: {memory['beyond'] / 1e6:.1f} MB beyond weights of"
            f" {memory['weights'] / 1e6:.1f} MB, of them cache {memory['cache'] / 1e6:.1f} MB;"
            f" {share:.1%} without it"
        )
    yield f"  bytes: {'equal' if document['equal'] else 'NOT equal'}"


def plot(document: Mapping[str, Any]) -> str:
    """Return a drawing: a bar for the time of each step, and a mark at its bound."""
    entries = document["engine"]
    scale = 400 / max(max(entry["step_ms"], entry["bound_ms"]) for entry in entries)
    height = 24 * len(entries) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="700" height="{height}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="700" height="{height}" fill="white"/>',
        f'<text x="10" y="18">Time of a step (bar), and of reading its weights once (line):'
        f" {document['shape']}</text>",
    ]
    for row, entry in enumerate(entries):
        top = 30 + 24 * row
        step, bound = scale * entry["step_ms"], 150 + scale * entry["bound_ms"]
        threads = f"{entry['threads']} thread{'s' * (entry['threads'] > 1)}"
        parts += [
            f'<text x="10" y="{top + 13}">{entry["precision"]}, {threads}</text>',
            f'<rect x="150" y="{top}" width="{step:.1f}" height="16" fill="#8ab"/>',
            f'<path d="M{bound:.1f} {top - 3}v22" stroke="#b22" stroke-width="2"/>',
            f'<text x="{max(150 + step, bound) + 8:.1f}" y="{top + 13}">'
            f"{entry['step_ms']:.2f} ms, bound {entry['bound_ms']:.2f}</text>",
        ]
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    one_line.run(main)
