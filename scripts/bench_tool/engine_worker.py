"""What `scripts/bench engine` measures, in a process for each: one JSON line in, one out.

A process of its own has its own peak of memory, and torch's threads and allocator disturb none but
the stock pipeline. A process keeps its model loaded.
"""

import ctypes
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

PROMPT, SEED = "a slow sad piano in A minor", 7
KINDS = ("float32", "bfloat16", "int8", "int4")
# Seconds between two looks at the memory.
SAMPLE_SECONDS = 0.005
# Bytes that are read at least, so that starting the threads does not count.
READ_BYTES = 2**29

Answer = dict[str, Any]


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Return what a function returns, and its wall and processor time in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def digest(*arrays: Any) -> str:
    """Return the hash of arrays' bytes."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


class Stock:
    """`transformers.pipeline` as it is by default."""

    def __init__(self, folder: str) -> None:
        import transformers

        self._transformers = transformers
        self._pipeline = transformers.pipeline("text-to-audio", model=folder)
        # Seconds within the two other parts of the model.
        self._seconds = {"text": 0.0, "codec": 0.0}
        model = self._pipeline.model
        model.text_encoder.forward = self._clocked("text", model.text_encoder.forward)
        model.audio_encoder.decode = self._clocked("codec", model.audio_encoder.decode)

    def _clocked(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            result = work(*args, **kwargs)
            self._seconds[part] += time.perf_counter() - started
            return result

        return run

    def song(self, tokens: int) -> Answer:
        """Generate one song. `decoder` is what neither the text encoder nor the codec took."""
        self._transformers.set_seed(SEED)
        self._seconds.update(text=0.0, codec=0.0)
        _, song = timed(lambda: self._pipeline(PROMPT, generate_kwargs={"max_new_tokens": tokens}))
        return {"song": song, "decoder": song["wall"] - sum(self._seconds.values())}


class Engine:
    """The engine, with a model in one precision."""

    def __init__(self, folder: str, kind: str) -> None:
        from executor.engine.matrices import Kind
        from executor.engine.music import MusicModel

        before = anonymous_bytes()
        self._model = MusicModel(Path(folder), Kind[kind.upper()])
        self._before = before
        files = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
        # What the precision or the file's own one (float16) does not let be used where it lies.
        held = self._model._decoder._matrices.copied_bytes
        # A file whose matrices all lie as they are used has some vectors that do not.
        self._held, self._weights = held, held if held > files // 10 else files

    def song(self, threads: int, tokens: int) -> Answer:
        """Generate a song, check its tokens by replay, and decode it again beside that."""
        from executor.engine.library import check
        from executor.engine.pool import Pool

        model, request = self._model, self._request([SEED], tokens)
        decoder, seeds, sampling = model._decoder, request.seeds, request.sampling
        with Pool(threads) as pool:

            def sing() -> tuple[Any, Any, dict[str, dict[str, float]]]:
                hidden, text = timed(lambda: model._read_prompt(request, pool, None))
                (status, steps), generated = timed(
                    lambda: decoder.generate(hidden, tokens, seeds, sampling, pool)
                )
                check(status)
                audio, codec = timed(lambda: model.decode(steps.tokens[0], pool))
                return (hidden, steps), audio, {"text": text, "decoder": generated, "codec": codec}

            ((hidden, steps), audio, parts), song = timed(sing)
            (status, again, difference), replay = timed(
                lambda: decoder.replay(hidden, steps.tokens, seeds, sampling, pool)
            )
        check(status)
        equal = difference is None and digest(again.logits) == digest(steps.logits)
        return {
            "song": song,
            **parts,
            "replay": replay,
            "replay_equal": equal,
            "sha256": digest(steps.tokens, steps.logits, audio),
            "seconds": audio.shape[-1] / model.sampling_rate,
        }

    def batch(self, threads: int, tokens: int, sizes: Sequence[int]) -> Answer:
        """Generate sequences of one task, then tasks, one after the other and together."""
        from executor.engine.pool import Pool

        seeds = [SEED + number for number in range(max(sizes))]
        with Pool(threads) as pool:

            def run(chosen: Sequence[int]) -> tuple[Any, dict[str, float]]:
                request = self._request(chosen, tokens)
                return timed(lambda: self._model.generate(request, pool))

            alone = [run([seed]) for seed in seeds]
            answer = {}
            for size in sizes:
                steps, together = run(seeds[:size])
                single = [part for part, _ in alone[:size]]
                answer[str(size)] = {
                    "together": together["wall"],
                    "alone": sum(times["wall"] for _, times in alone[:size]),
                    "equal": digest(steps.tokens, steps.logits)
                    == digest(*(s.tokens for s in single), *(s.logits for s in single)),
                    **self._tasks(pool, tokens, seeds[:size]),
                }
        return answer

    def _tasks(self, pool: Any, tokens: int, seeds: Sequence[int]) -> Answer:
        """Generate a task of each seed, the last one half as long as the first."""
        from executor.engine.pool import Control

        last = max(1, len(seeds) - 1)
        lengths = [tokens - tokens * place // (2 * last) for place in range(len(seeds))]
        requests = [
            self._request([seed], length) for seed, length in zip(seeds, lengths, strict=True)
        ]
        alone, single = timed(lambda: [self._model.generate(one, pool) for one in requests])

        def together() -> Any:
            songs = [self._model.song(request, Control(), pool) for request in requests]
            return sorted(self._model.generate_together(songs, pool), key=lambda end: end[0])

        ended, joint = timed(together)
        equal = all(
            digest(steps.tokens, steps.logits) == digest(one.tokens, one.logits)
            for (_, _, steps), one in zip(ended, alone, strict=True)
        )
        return {
            "tasks_together": joint["wall"],
            "tasks_alone": single["wall"],
            "tasks_equal": equal,
        }

    def memory(self, threads: int, tokens: int) -> Answer:
        """Return the peak of memory beyond the weights while a song is made, in bytes."""
        from executor.engine.pool import Pool

        peak, done = anonymous_bytes(), threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(SAMPLE_SECONDS):
                peak = max(peak, anonymous_bytes())

        watcher = threading.Thread(target=watch)
        watcher.start()
        with Pool(threads) as pool:
            request = self._request([SEED], tokens)
            steps = self._model.generate(request, pool)
            self._model.decode(steps.tokens[0], pool)
        done.set()
        watcher.join()
        guided = request.sampling.guidance > 1
        return {
            "beyond": peak - self._before - self._held,
            "cache": sum(
                self._model._decoder.cache_bytes(len(request.prompt), tokens, guided=guided)
            ),
            "weights": self._weights,
        }

    def step_bytes(self) -> int:
        """Return the bytes of the matrices that a step of the decoder reads."""
        struct, decoder = self._model._decoder._struct, self._model._decoder
        names = ("q", "k", "v", "out", "cross_q", "cross_out", "up", "down")
        layers = [getattr(layer, name) for layer in decoder._layers for name in names]
        heads = [struct.head[number] for number in range(struct.codebooks)]
        return sum(matrix_bytes(matrix) for matrix in (*layers, *heads))

    def _request(self, seeds: Sequence[int], tokens: int) -> Any:
        return self._model.request(PROMPT, seeds, {"max_new_tokens": tokens})


class Reader:
    """Reads as many bytes as a step reads: the bound of a step's time."""

    def __init__(self, most: str) -> None:
        """`most` is the largest number of bytes that will be read."""
        import numpy as np

        self._memory = np.ones(int(most), np.uint8)
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "read_streams.so"
            source = Path(__file__).with_name("read_streams.c")
            command = [
                "cc",
                "-O3",
                "-march=native",
                "-w",
                "-shared",
                "-fPIC",
                source,
                "-o",
                library,
            ]
            subprocess.run(command, check=True)
            self._read = ctypes.CDLL(str(library)).read_streams

    def read(self, threads: int, size: int) -> Answer:
        """Return the time in which `size` bytes are read once; every thread reads its part."""
        part, times = size // threads, max(1, READ_BYTES // size)
        start = self._memory.ctypes.data

        def read(number: int) -> None:
            self._read(
                ctypes.c_void_p(start + number * part), ctypes.c_int64(part), ctypes.c_int64(times)
            )

        with ThreadPoolExecutor(threads) as executor:
            # It starts the threads, and brings memory back that the system has taken meanwhile.
            list(executor.map(read, range(threads)))
            _, taken = timed(lambda: list(executor.map(read, range(threads))))
        return {name: seconds / times for name, seconds in taken.items()}


def matrix_bytes(matrix: Any) -> int:
    """Return the size of a matrix with its scales (`csrc/engine.h`)."""
    from executor.engine.matrices import Kind

    numbers = matrix.out * matrix.inputs
    sizes = {
        Kind.FLOAT32: 4 * numbers,
        Kind.BFLOAT16: 2 * numbers,
        Kind.FLOAT16: 2 * numbers,
        Kind.INT8: numbers + 4 * matrix.out,
        Kind.INT4: numbers // 2 + 4 * numbers // 32,
    }
    return int(sizes[matrix.kind])


def anonymous_bytes() -> int:
    """Return the memory of this process that is no file's."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


PARTS: Mapping[str, Callable[..., Any]] = {"stock": Stock, "engine": Engine, "reader": Reader}


def main() -> None:
    """Serve calls on standard input: the name of a method and its arguments."""
    part = PARTS[sys.argv[1]](*sys.argv[2:])
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        call = json.loads(line)
        print(json.dumps(getattr(part, call["method"])(**call["arguments"])), flush=True)


if __name__ == "__main__":
    main()
