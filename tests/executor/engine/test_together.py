"""Songs of one model together: each has the bits that it has alone.

`scripts/engine_sanitize` looks for what is not freed or read beyond its end.
"""

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.engine import music
from executor.engine.library import Status
from executor.engine.matrices import Kind
from executor.engine.music import MusicModel, Request
from executor.engine.musicgen import MAX_SONGS, MusicgenDecoder, Song, Steps
from executor.engine.pool import Control, Pool
from executor.engine.sampling import Sampling
from executor.errors import Abstained
from executor.models.folders import EMBEDDED, SHIPPED
from tests.executor.engine.test_musicgen import tiny, tiny_decoder
from tests.support.tiny_models import musicgen, musicgen_melody

Ended = list[tuple[int, Status, Steps]]


@functools.cache
def engine(kind: Kind = Kind.FLOAT32) -> MusicgenDecoder:
    return tiny_decoder(tiny(hidden_size=32, ffn_dim=64), kind)


def song(
    steps: int,
    seeds: Sequence[int] = (7,),
    guidance: float = 3.0,
    length: int = 5,
    *,
    top_k: int = 0,
    sample: bool = True,
) -> Song:
    """A song whose prompt follows from its length."""
    prompt = np.random.default_rng(length).standard_normal((length, 32)).astype(np.float32)
    return Song(prompt, steps, seeds, Sampling(sample, 1.0, top_k, 0.9, guidance))


def alone(decoder: MusicgenDecoder, one: Song) -> Steps:
    """Generate each sequence by itself."""
    ends = [decoder.generate(one.prompt, one.steps, [seed], one.sampling) for seed in one.seeds]
    assert {status for status, _ in ends} == {Status.OK}
    return Steps(
        np.concatenate([steps.tokens for _, steps in ends]),
        np.concatenate([steps.logits for _, steps in ends]),
    )


def assert_equal(steps: Steps, expected: Steps) -> None:
    assert steps.tokens.tobytes() == expected.tokens.tobytes()
    assert steps.logits.tobytes() == expected.logits.tobytes()


songs = st.builds(
    song,
    steps=st.integers(1, 64),
    seeds=st.lists(st.integers(0, 2**63), min_size=1, max_size=3),
    guidance=st.sampled_from([1.0, 1.5, 3.0]),
    length=st.integers(1, 9),
    top_k=st.sampled_from([0, 5]),
    sample=st.booleans(),
)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", [Kind.FLOAT32, Kind.INT8])
@settings(max_examples=25)
@given(asked=st.lists(songs, min_size=2, max_size=5))
def test_songs_together_have_the_bits_of_single_ones(
    kind: Kind, threads: int, asked: list[Song]
) -> None:
    decoder = engine(kind)
    with Pool(threads) as pool:
        ended = list(decoder.generate_together(asked, pool))
    assert sorted(place for place, _, _ in ended) == [*range(len(asked))]
    for place, status, steps in ended:
        assert status is Status.OK
        assert_equal(steps, alone(decoder, asked[place]))


@pytest.mark.parametrize("kind", list(Kind))
def test_songs_of_every_precision_have_the_bits_of_single_ones(kind: Kind) -> None:
    asked = [song(20), song(64, (1, 2), 1.0, 3), song(9, (3,), 3.0, 8)]
    for place, _, steps in engine(kind).generate_together(asked):
        assert_equal(steps, alone(engine(kind), asked[place]))


@pytest.mark.parametrize("kind", [Kind.FLOAT32, Kind.INT8])
def test_a_melody_models_songs_have_the_bits_of_single_ones(kind: Kind, tmp_path: Path) -> None:
    """Prompts of other lengths come before the steps: positions of one step differ."""
    musicgen_melody.build(tmp_path)
    model = MusicModel(tmp_path, kind)
    requests = [
        model.request("a slow sad piano", [7], {"max_new_tokens": 40}),
        model.request("bells", [8, 9], {"max_new_tokens": 70, "guidance_scale": 1.0}),
        model.request("x" * 40, [10], {"max_new_tokens": 3}),
    ]
    songs = [model.song(request, Control()) for request in requests]
    ended = list(model.generate_together(songs))
    assert len({one.prompt.shape for one in songs}) == 3
    for place, _, steps in ended:
        assert_equal(steps, model.generate(requests[place]))


def test_a_song_leaves_as_soon_as_it_has_ended_and_the_others_go_on() -> None:
    asked = [song(60), song(3), song(20), song(3, (9,))]
    ended = engine().generate_together(asked)
    for place, done in ((1, 3), (3, 3), (2, 20), (0, 60)):
        left, status, steps = next(ended)
        assert (left, status) == (place, Status.OK)
        assert asked[0].control.done.value == done
        assert_equal(steps, alone(engine(), asked[place]))
    assert [one.control.done.value for one in asked] == [60, 3, 20, 3]


def test_a_stopped_song_leaves_alone() -> None:
    asked = [song(64, (number,)) for number in range(3)] + [song(10)]
    ended = engine().generate_together(asked)
    assert next(ended)[:2] == (3, Status.OK)
    asked[1].control.stop.value = 1
    place, status, steps = next(ended)
    assert (place, status, asked[1].control.done.value) == (1, Status.STOPPED, 10)
    assert (steps.tokens[:, :10] == alone(engine(), asked[1]).tokens[:, :10]).all()
    assert (steps.tokens[:, 10:] == 0).all()
    for place, status, steps in ended:
        assert status is Status.OK
        assert_equal(steps, alone(engine(), asked[place]))


def test_a_song_that_is_stopped_before_the_first_step_has_none() -> None:
    asked = [song(5), song(5)]
    asked[0].control.stop.value = 1
    ended = list(engine().generate_together(asked))
    assert [(place, status) for place, status, _ in ended] == [(0, Status.STOPPED), (1, Status.OK)]
    assert asked[0].control.done.value == 0


@pytest.mark.parametrize("kind", [Kind.FLOAT32, Kind.INT8])
def test_a_song_that_is_not_finite_leaves_alone(kind: Kind) -> None:
    asked = [song(30), song(30, (8, 9)), song(30, (3,), 1.0)]
    asked[1].prompt[2, 3] = np.inf
    ended: Ended = list(engine(kind).generate_together(asked))
    single, _ = engine(kind).generate(asked[1].prompt, 30, [8, 9], asked[1].sampling)
    assert single is Status.NOT_FINITE
    assert [(place, status) for place, status, _ in ended] == [
        (1, Status.NOT_FINITE),
        (0, Status.OK),
        (2, Status.OK),
    ]
    for place, _, steps in ended[1:]:
        assert_equal(steps, alone(engine(kind), asked[place]))


def test_more_songs_than_the_library_has_room_for_are_refused() -> None:
    asked = [song(2, (number,)) for number in range(MAX_SONGS)]
    assert len(list(engine().generate_together(asked))) == MAX_SONGS
    with pytest.raises(ValueError, match="9 songs, at most 8"):
        next(engine().generate_together([*asked, song(2)]))


def shipped() -> MusicModel:
    return MusicModel(SHIPPED / EMBEDDED, Kind.FLOAT32)


def asked_of(model: MusicModel, steps: int, sequences: int = 1, **members: float) -> Request:
    return model.request("bells", [*range(sequences)], {"max_new_tokens": steps, **members})


def test_requests_fit_as_long_as_their_caches_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    model = shipped()
    guided, bare = asked_of(model, 100), asked_of(model, 100, guidance_scale=1.0)
    length = len(guided.prompt)
    shared, size = model._decoder.cache_bytes(length, 100, guided=False)
    assert model._decoder.cache_bytes(length, 100, guided=True) == (shared, 2 * size)

    def fitting(*requests: Request) -> list[int]:
        return model.fitting(dict(enumerate(requests)))

    monkeypatch.setattr(music, "CACHE_BYTES", 3 * shared + 5 * size)
    assert fitting(guided, bare, guided, guided) == [0, 1, 2]
    assert fitting(guided, asked_of(model, 100, 2), bare) == [0, 2], "a smaller one still fits"
    assert fitting(asked_of(model, 100, 3), bare) == [1]
    assert fitting() == []
    # A prompt's keys are there once, however many sequences read it.
    assert model.batch(bare) == 5 + 2 * shared // size
    assert model.batch(asked_of(model, 2_000)) == 1


class MallocState(ctypes.Structure):
    """`struct mallinfo2` of mallinfo(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def allocated() -> int:
    """The bytes that this process has from malloc."""
    call = ctypes.CDLL(None).mallinfo2
    call.restype = MallocState
    state = call()
    return int(state.uordblks + state.hblkhd)


@pytest.mark.parametrize("tiny_model", [musicgen, musicgen_melody])
@pytest.mark.parametrize(
    ("words", "sequences", "steps"), [(2, 8, 300), (900, 2, 9)], ids=["long", "long prompt"]
)
def test_a_song_that_leaves_gives_its_cache_back(
    tmp_path: Path, tiny_model: ModuleType, words: int, sequences: int, steps: int
) -> None:
    """And it is as large as `cache_bytes` says."""
    before, block = allocated(), ctypes.create_string_buffer(2**20)
    if allocated() - before < len(block):
        pytest.skip("this process has another malloc than libc's: a sanitizer's")
    tiny_model.build(tmp_path)
    model = MusicModel(tmp_path, Kind.FLOAT32)

    def asked(words: int, sequences: int, steps: int) -> Song:
        config = {"max_new_tokens": steps}
        request = model.request("x " * words, [*range(sequences)], config)
        return model.song(request, Control())

    songs = [asked(1, 1, 2), asked(words, sequences, steps), asked(1, 1, steps + 1)]
    ended = model.generate_together(songs)
    assert next(ended)[0] == 0
    before = allocated()
    assert next(ended)[0] == 1
    freed = before - allocated()
    prompt = len(songs[1].prompt)
    shared, each = model._decoder.cache_bytes(prompt, steps, guided=True)
    assert shared + sequences * each <= freed < shared + sequences * each + 2**16
    ended.close()  # type: ignore[attr-defined]


def test_what_a_prompt_raises_comes_before_the_first_song() -> None:
    model, stopped = shipped(), Control()
    stopped.stop.value = 1
    with pytest.raises(Abstained, match="stopped"):
        model.song(asked_of(model, 5), stopped)
