"""The songs that the cover model learns from: rendered when first asked for, and kept."""

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from transformers import EncodecModel

from scripts.embedded_model import codec, cover
from scripts.embedded_model.piano import COMPOSERS

GROUP: Final = 25  # songs of a file
ROWS: Final = 32  # of a step
CHOICE: Final = 4 * ROWS  # of which a step takes those of like lengths, for little padding
PACE: Final = 8  # steps until another group of songs is added
HELD: Final = 30  # songs that are only looked at during training


class Songs:
    """Rows by groups of songs; early steps make do with few, so that training soon begins.

    Of 1,500 songs alone the model learned by heart: 0.39 nats a token, and 0.80 on others.
    """

    def __init__(self, folder: Path, seed: int, count: int) -> None:
        self._folder, self._seed, self._count = folder, seed, count
        self._kept: dict[int, list[cover.Row]] = {}
        self._codec: Any = EncodecModel(codec.configuration()).eval()
        codec.write(self._codec)
        self._listener = cover.extractor()
        folder.mkdir(parents=True, exist_ok=True)

    def drawn(self, step: int) -> list[tuple[cover.Row, int]]:
        """A step's rows and their composers, drawn from the seed and the step's number alone."""
        chance = random.Random(f"cover step/{self._seed}/{step}")
        groups = min(self._count // GROUP, 4 + step // PACE)
        found = [chance.choice(self._group(chance.randrange(groups))) for _ in range(CHOICE)]
        found.sort(key=lambda row: len(row.heard))
        first = chance.randrange(0, CHOICE, ROWS)
        return [(row, chance.randrange(len(COMPOSERS))) for row in found[first : first + ROWS]]

    def held(self) -> list[list[tuple[cover.Row, int]]]:
        """Rows of songs that nothing is learned from, those of like lengths together."""
        rows = [row for number in range(HELD) for row in self._song(f"cover/held back/{number}")]
        chosen = [(row, place % len(COMPOSERS)) for place, row in enumerate(rows)]
        chosen.sort(key=lambda one: len(one[0].heard))
        return [chosen[first : first + ROWS] for first in range(0, len(chosen), ROWS)]

    def _song(self, name: str) -> Iterator[cover.Row]:
        return cover.rows(self._codec, self._listener, name)

    def _group(self, number: int) -> list[cover.Row]:
        if number not in self._kept:
            path = self._folder / f"{self._seed}-{number}.pt"
            if not path.exists():
                rendered = [dataclasses.asdict(row) for row in self._rendered(number)]
                torch.save(rendered, path.with_suffix(".new"))
                path.with_suffix(".new").replace(path)
            rows = torch.load(path, weights_only=True)
            self._kept[number] = [cover.Row(**row) for row in rows]
        return self._kept[number]

    def _rendered(self, number: int) -> list[cover.Row]:
        return [
            row for song in range(number * GROUP, (number + 1) * GROUP)
            for row in self._song(f"cover/{self._seed}/{song}")
        ]  # fmt: skip
