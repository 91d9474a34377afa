"""The training data of the piano model: rows of rendered songs, batches, and losses of a step."""

import dataclasses
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import librosa
import numpy as np
import torch
from torch.nn import functional
from transformers import (
    EncodecModel,
    Pop2PianoFeatureExtractor,
)

from scripts.models.music.brief import FRAME_RATE
from scripts.models.music.codec import codec_config, decode_audio, write_codec
from scripts.models.music.instruments import HOP, SAMPLING_RATE
from scripts.models.music.render import render_tokens
from scripts.models.music.tokens import compose_piece
from scripts.models.piano.model import (
    IGNORED,
    MAX_ROW_TOKENS,
    SHIPPED_SIZE,
    SILENCE,
    OnsetTargets,
    alignment_loss,
    feature_extractor,
    onset_losses,
    onset_targets,
    step_attention,
)
from scripts.models.piano.score import (
    COMPOSERS,
    STEPS_PER_ROW,
    Grid,
    decode_row,
    encode_row,
    piano_parts,
    quantize,
)

# The length of a training song, if no other is asked for: 10 seconds.
SONG_FRAMES: Final = 500
SLOWEST_BEAT, FASTEST_BEAT = (
    60.0,
    165.0,
)  # beats per minute between which a beat tracker hears a piece
RENDERED_SHARE: Final = (
    0.15  # of the songs are played by the generator's own synthesis, the rest by the codec
)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a song: its mel spectrogram (time, bands) and tokens for each composer."""

    mel_frames: torch.Tensor
    tokens: tuple[list[int], ...]


def _draw_grid(frames: int, rng: random.Random) -> Grid:
    """Draw a grid as a beat tracker may find it: the true, half or double tempo, any first step."""
    quarter = 4 * frames
    beats = [
        quarter * factor for factor in (1, 1, 0.5, 2)
        if SLOWEST_BEAT <= 60 * FRAME_RATE / (quarter * factor) <= FASTEST_BEAT
    ]  # fmt: skip
    step = rng.choice(beats) / 2
    return Grid(rng.randrange(STEPS_PER_ROW) * step + rng.uniform(-1, 1), step)


def song_rows(
    codec: Any, listener: Pop2PianoFeatureExtractor, seed: str, frames: int = SONG_FRAMES
) -> Iterator[Row]:
    """Yield a song's rows, played by the codec or by the reference synthesis."""
    rng = random.Random(f"{seed}/grid")
    brief, _, codes = compose_piece(seed, frames)
    rendered = rng.random() < RENDERED_SHARE
    audio = render_tokens(codes) if rendered else decode_audio(codec, codes)
    rate = listener.sampling_rate
    sound = librosa.resample(audio, orig_sr=SAMPLING_RATE, target_sr=rate, res_type="soxr_hq")
    sound *= rng.uniform(0.5, 1.2)
    grid = _draw_grid(brief.frames, rng)
    parts = [quantize(part, grid) for part in piano_parts(codes).values()]
    for row in range(grid.rows(frames)):
        first, end = (max(0, int(edge * HOP / SAMPLING_RATE * rate)) for edge in grid.span(row))
        mel = listener.mel_spectrogram(sound[None, first:end].astype(np.float32))[0]
        mel_frames = torch.from_numpy(np.log(np.clip(mel, 1e-6, None)).T.astype(np.float32))
        tokens = tuple(encode_row(part, row) for part in parts)
        if max(map(len, tokens)) < MAX_ROW_TOKENS:
            yield Row(mel_frames, tokens)


# A step draws this many batches of rows. It takes one of similar lengths, for little padding.
BATCHES_TO_CHOOSE_FROM: Final = 4
# Training steps until the next file of songs is used too.
STEPS_PER_GROUP: Final = 8


@dataclass(frozen=True, slots=True)
class SongConfig:
    """The size of the training data. The default is the shipped model's."""

    songs: int = 6_000
    # Few, so that the first step need not wait long.
    songs_per_file: int = 25
    # Songs that are only used to watch the training.
    held_out_songs: int = 30
    # The length of a song.
    frames: int = SONG_FRAMES
    # The batch size.
    rows_per_step: int = 32


SHIPPED_SONGS: Final = SongConfig()


class SongDataset:
    """Rows of generated songs, in files of several songs that are rendered on first use.

    Early steps use few songs, so that training starts soon. With 1,500 songs the model overfitted:
    0.39 nats per token in training, 0.80 on held-out songs.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        config: SongConfig = SHIPPED_SONGS,
        bands: int = SHIPPED_SIZE.width,
    ) -> None:
        self._folder, self._seed, self._config = folder, seed, config
        self._loaded: dict[str, list[Row]] = {}
        self._codec: Any = EncodecModel(codec_config()).eval()
        write_codec(self._codec)
        self._extractor = feature_extractor(bands)
        folder.mkdir(parents=True, exist_ok=True)

    def rows_of_step(self, step: int) -> list[tuple[Row, int]]:
        """Return a step's rows and composers, drawn from the seed and the step alone."""
        rng = random.Random(f"cover step/{self._seed}/{step}")
        count = self._config.rows_per_step
        files = self._config.songs // self._config.songs_per_file
        groups = min(files, 4 + step // STEPS_PER_GROUP)
        rows = [
            rng.choice(self._group(rng.randrange(groups)))
            for _ in range(BATCHES_TO_CHOOSE_FROM * count)
        ]
        rows.sort(key=lambda row: len(row.mel_frames))
        first = rng.randrange(0, len(rows), count)
        return [(row, rng.randrange(len(COMPOSERS))) for row in rows[first : first + count]]

    def held_out_rows(self) -> list[list[tuple[Row, int]]]:
        """Return rows of held-out songs in batches of similar length."""
        songs = [f"cover/held back/{number}" for number in range(self._config.held_out_songs)]
        rows = self._load("held-out", songs)
        choices = [(row, index % len(COMPOSERS)) for index, row in enumerate(rows)]
        choices.sort(key=lambda choice: len(choice[0].mel_frames))
        count = self._config.rows_per_step
        return [choices[first : first + count] for first in range(0, len(choices), count)]

    def _group(self, number: int) -> list[Row]:
        count = self._config.songs_per_file
        songs = range(number * count, (number + 1) * count)
        return self._load(
            f"{self._seed}-{number}", [f"cover/{self._seed}/{song}" for song in songs]
        )

    def _load(self, file: str, songs: Sequence[str]) -> list[Row]:
        """Return the rows of songs from a file, which is first written if it is missing."""
        if file not in self._loaded:
            path = self._folder / f"rows-{file}.pt"
            if not path.exists():
                rendered = [
                    dataclasses.asdict(row)
                    for song in songs
                    for row in song_rows(self._codec, self._extractor, song, self._config.frames)
                ]
                torch.save(rendered, path.with_suffix(".new"))
                path.with_suffix(".new").replace(path)
            self._loaded[file] = [Row(**row) for row in torch.load(path, weights_only=True)]
        return self._loaded[file]


# Rows, each with the index of its composer.
RowChoice = Sequence[tuple[Row, int]]
# Weights in the loss by kind of token. When notes end is mostly a guess, and so is that velocity.
TOKEN_WEIGHTS: Final = {"onset": 1.0, "TIME": 1.0, "SPECIAL": 1.0, "VELOCITY": 0.3, "release": 0.3}
# The weight of the attention loss, relative to that of the tokens.
ALIGNMENT_WEIGHT: Final = 0.2
# The weight of the encoder's losses, relative to that of the tokens.
ONSET_WEIGHT: Final = 0.3
ENCODER_LOSSES: Final = ("onsets", "steps")
PIANO_LOSSES: Final = ("tokens", "alignment", *ENCODER_LOSSES)


@dataclass(frozen=True, slots=True)
class PianoBatch:
    """The rows of a step.

    `mel_frames`: spectrograms (rows, time, bands), padded with silence. `composers`: (rows,).
    `tokens`: (rows, tokens), padded with `IGNORED`. `onset_steps`: for tokens that begin a note its
    step, else `IGNORED`. `weights`: of each token in the loss.
    """

    mel_frames: torch.Tensor
    composers: torch.Tensor
    tokens: torch.Tensor
    onset_steps: torch.Tensor
    weights: torch.Tensor
    targets: OnsetTargets


def make_batch(choices: RowChoice) -> PianoBatch:
    """Return a batch, padded to the longest row."""
    lengths = [len(row.mel_frames) for row, _ in choices]
    bands = choices[0][0].mel_frames.shape[1]
    mel_frames = torch.full((len(choices), max(lengths), bands), SILENCE)
    tokens = torch.full(
        (len(choices), max(len(row.tokens[composer]) for row, composer in choices)), IGNORED
    )
    onset_steps, weights = torch.full_like(tokens, IGNORED), torch.zeros(tokens.shape)
    for index, (row, composer) in enumerate(choices):
        mel_frames[index, : len(row.mel_frames)] = row.mel_frames
        tokens[index, : len(row.tokens[composer])] = torch.tensor(row.tokens[composer])
        for number, token in enumerate(decode_row(row.tokens[composer])):
            weights[index, number] = TOKEN_WEIGHTS[token.kind]
            if token.kind == "onset":
                onset_steps[index, number] = token.step
    targets = onset_targets(lengths, [row.tokens for row, _ in choices])
    return PianoBatch(
        mel_frames,
        torch.tensor([composer for _, composer in choices]),
        tokens,
        onset_steps,
        weights,
        targets,
    )


def encoder_inputs(model: Any, batch: PianoBatch) -> torch.Tensor:
    """Return the embedded composer and the frames, (rows, 1 + time, width)."""
    embeddings: torch.Tensor = model.mel_conditioner(
        feature=batch.mel_frames, index_value=batch.composers, embedding_offset=0
    )
    return embeddings


def encoder_losses(model: Any, head: Any, batch: PianoBatch) -> torch.Tensor:
    """Return the losses of the encoder, named `ENCODER_LOSSES`."""
    encoded = model.encoder(inputs_embeds=encoder_inputs(model, batch))[0]
    return onset_losses(head, encoded, batch.targets)


def piano_losses(model: Any, head: Any, batch: PianoBatch) -> torch.Tensor:
    """Return the weighted losses of the whole model, named `PIANO_LOSSES`."""
    output = forward(model, batch)
    token_losses = functional.cross_entropy(
        output.logits.float().flatten(0, 1), batch.tokens.flatten(),
        ignore_index=IGNORED, reduction="none",
    )  # fmt: skip
    token_loss = (token_losses * batch.weights.flatten()).sum() / batch.weights.sum()
    shares = step_attention(output.cross_attentions, batch.onset_steps, batch.targets)
    onset = onset_losses(head, output.encoder_last_hidden_state, batch.targets)
    return torch.stack(
        [token_loss, ALIGNMENT_WEIGHT * alignment_loss(shares), *(ONSET_WEIGHT * onset)]
    )


def forward(model: Any, batch: PianoBatch) -> Any:
    """Run the model on a batch with teacher forcing. The output includes attentions."""
    return model(
        inputs_embeds=encoder_inputs(model, batch),
        decoder_input_ids=model.prepare_decoder_input_ids_from_labels(batch.tokens),
        output_attentions=True,
    )
