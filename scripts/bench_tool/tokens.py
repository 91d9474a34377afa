"""Compare the engine's tokens and logits with those of transformers, at float32.

Both generate songs from the same seeds with a model's own settings. The engine's order of
operations is its own, so logits differ by rounding; a token differs where that decides a draw.
After the first token that differs, two songs have nothing in common: songs that differ are counted
beside tokens. For logits, transformers computes the engine's own tokens once more in one pass; the
steps that the engine keeps are compared, after guidance.

  songs    that were generated, and those with a token that differs
  tokens   that were compared (each codebook of each step), and those that differ per 1,000
  logits   the largest difference, and that divided by the largest logit
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from executor.errors import Abstained
from executor.models.folders import EMBEDDED, ModelFolders
from protocol.work import kept_steps
from scripts import arguments, one_line
from scripts.bench_tool.output import progress, report

PROMPTS = (
    "80s pop track with bassy drums and synth",
    "a slow sad piano in A minor",
    "rain on a tin roof, far thunder",
)


class Pair:
    """A model, in transformers and in the engine."""

    def __init__(self, folder: Path) -> None:
        import torch
        import transformers

        from executor.engine.matrices import Kind
        from executor.engine.music import MusicModel

        transformers.logging.set_verbosity_error()  # it warns of the shipped model's configuration
        transformers.logging.disable_progress_bar()
        self._torch, self._transformers = torch, transformers
        loaded = transformers.AutoModelForTextToWaveform.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        )
        self._stock = loaded.eval()
        self._engine = MusicModel(folder, Kind.FLOAT32)
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def song(self, prompt: str, seed: int, steps: int) -> dict[str, float]:
        """Generate one song twice; return what differs."""
        request = self._engine.request(prompt, [seed], {"max_new_tokens": steps})
        generated = self._engine.generate(request)
        tokens = generated.tokens[0]
        other = self._drawn(prompt, seed, steps)
        differ = int((tokens != other).sum())
        logits = self._logits(prompt, tokens, request.sampling.guidance)
        ours = generated.logits[0]
        return {
            "tokens": tokens.size,
            "differ": differ,
            "logits": float(abs(ours - logits).max()),
            "largest": float(abs(logits).max()),
        }

    def _drawn(self, prompt: str, seed: int, steps: int) -> Any:
        """Return the tokens that transformers draws, before the delay mask: (steps, codebooks)."""
        torch = self._torch
        drawn: list[Any] = []

        class Keep(self._transformers.StoppingCriteria):  # type: ignore[name-defined,misc]
            def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
                drawn[:] = [input_ids.clone()]
                return torch.zeros(len(input_ids), dtype=torch.bool)

        self._transformers.set_seed(seed)
        with torch.inference_mode():
            self._stock.generate(
                **self._tokenizer(prompt, return_tensors="pt"),
                max_new_tokens=steps,
                stopping_criteria=[Keep()],
            )
        return drawn[0].numpy().T[1:]

    def _logits(self, prompt: str, tokens: Any, guidance: float) -> Any:
        """Return the logits of the kept steps: (kept, codebooks, vocabulary)."""
        torch, decoder = self._torch, self._engine._decoder
        steps, codebooks = tokens.shape
        columns = [decoder.column(tokens, step) for step in range(steps)]
        ids = torch.tensor([[int(column[k]) for column in columns] for k in range(codebooks)])
        with torch.inference_mode():
            text = self._tokenizer(prompt, return_tensors="pt")["input_ids"]
            hidden = self._stock.text_encoder(input_ids=text).last_hidden_state
            if hasattr(self._stock, "enc_to_dec_proj"):
                hidden = self._stock.enc_to_dec_proj(hidden)
            sides = [
                self._stock.decoder(input_ids=ids, encoder_hidden_states=side).logits
                for side in (hidden, torch.zeros_like(hidden))[: 1 + (guidance > 1)]
            ]
            logits = sides[-1] + (sides[0] - sides[-1]) * guidance
        kept = list(kept_steps(steps))
        return logits.view(codebooks, steps, -1)[:, kept].transpose(0, 1).numpy()


def summary(model: str, songs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return what all songs of a model came to."""
    tokens, differ = (sum(int(song[name]) for song in songs) for name in ("tokens", "differ"))
    logits = max(song["logits"] for song in songs)
    return {
        "model": model,
        "songs": len(songs),
        "songs_that_differ": sum(song["differ"] > 0 for song in songs),
        "tokens": tokens,
        "differ_per_1000": 1000 * differ / tokens,
        "logits": logits,
        "logits_share": max(song["logits"] / song["largest"] for song in songs),
    }


def line(row: Mapping[str, Any]) -> str:
    """Return a row in words."""
    return (
        f"{row['model']}: {row['songs_that_differ']} of {row['songs']} songs differ,"
        f" {row['differ_per_1000']:.3f} per 1,000 of {row['tokens']} tokens;"
        f" logits differ by at most {row['logits']:.2e},"
        f" {row['logits_share']:.1e} of the largest"
    )


def main() -> None:
    assert __doc__
    parser = arguments.Parser("scripts/bench tokens", __doc__)
    whole = arguments.whole
    parser.add_argument(
        "--model", nargs="+", default=[EMBEDDED],
        help="models: of musicgen's family, mono or stereo (default: the shipped one)",
    )  # fmt: skip
    parser.add_argument("--models", type=arguments.folder, help="a folder of models beside those")
    parser.add_argument("--songs", type=whole(1), default=6, help="songs of a model (default 6)")
    parser.add_argument(
        "--tokens", type=whole(8, 2000), default=253, help="tokens of a song (default 253)"
    )
    parser.add_argument("--json", action="store_true", help="print one document")
    options = parser.parse_args()
    folders = ModelFolders([options.models.resolve()] if options.models else [])
    try:
        found = {model: folders.locate(model, "main") for model in options.model}
    except Abstained as abstained:
        parser.error(f"--model: {abstained.detail}")

    def rows() -> Iterator[dict[str, Any]]:
        for model, folder in found.items():
            pair, songs = Pair(folder), []
            for seed in range(options.songs):
                songs.append(pair.song(PROMPTS[seed % len(PROMPTS)], seed, options.tokens))
                progress(f"{model}: song {seed + 1} of {options.songs}")
            yield summary(model, songs)

    report(rows(), line, as_json=options.json)


if __name__ == "__main__":
    one_line.run(main)
