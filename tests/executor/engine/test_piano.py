"""Pop2Piano on the engine, from songs to notes, against today's path on transformers."""

import functools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from executor.audio import decode, midi
from executor.audio.song_features import SongFeatures
from executor.engine.library import MAX_POSITIONS
from executor.engine.matrices import Kind
from executor.engine.piano import Notation, PianoModel, Request, read_features
from executor.engine.pool import Control, Pool
from executor.engine.pop2piano import Steps
from executor.engine.sampling import Sampling
from executor.errors import Abstained, ModelRefused, TaskFailed
from executor.job import Difference
from executor.models.folders import SHIPPED
from executor.tasks import pop2piano
from protocol.wire.encoding import tagged_hash
from tests.executor.songs import RATE, recorded, song, written

FOLDER = SHIPPED / "helium" / "embedded-pop2piano"
SAMPLED = {"do_sample": True, "temperature": 0.9, "top_k": 40, "top_p": 0.95}
SECONDS = 12


@functools.cache
def shipped(kind: Kind = Kind.FLOAT32) -> PianoModel:
    return PianoModel(FOLDER, kind)


@functools.cache
def reference() -> pop2piano.LoadedPop2Piano:
    return pop2piano.load(FOLDER, "float32", None)


@functools.cache
def features() -> SongFeatures:
    return shipped().features(song(SECONDS, RATE, 7).astype(np.float32))


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return recorded(tmp_path_factory.mktemp("songs"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped model that a test may change."""
    return Path(shutil.copytree(FOLDER, tmp_path / "model"))


def rewrite(path: Path, **members: object) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **members}))


@pytest.mark.parametrize("name", ["mono", "stereo", "low"])
@pytest.mark.parametrize(
    ("composer", "members"),
    [
        ("composer1", {}),
        ("composer2", {"max_new_tokens": 30}),
        ("composer3", SAMPLED),
        ("composer1", {**SAMPLED, "temperature": 1.5}),
    ],
    ids=("greedy", "short", "sampled", "hot"),
)
def test_covers_are_those_of_transformers(
    composer: str, members: Mapping[str, Any], name: str, songs: Mapping[str, Path]
) -> None:
    model = shipped()
    request = model.request(composer, 1, members)
    args = {"composer": composer, "seed": 1, "generation_config": members}
    expected = ended(lambda: pop2piano.covers(reference(), args, [songs[name]], lambda _: None))
    covers = ended(lambda: covers_of(model, request, [songs[name]]))
    if isinstance(expected, str):
        assert covers == expected
        return
    ((notes, steps),) = covers
    assert notes == expected[0].notes
    assert digests(steps.tokens) == expected[0].tokens.digests


def covers_of(model: PianoModel, request: Request, paths: list[Path]) -> list[tuple[Any, Steps]]:
    """Return the notes and steps of each song's cover."""
    covers = []
    for recording in decode.decode_files(paths):
        heard = model.features(recording)
        steps = model.generate(request, heard)
        covers.append((model.notes(heard, steps.tokens), steps))
    return covers


def ended(run: Callable[[], Any]) -> Any:
    """What a task gives, or its error."""
    try:
        return run()
    except TaskFailed as failure:
        return failure.code


def digests(tokens: Any) -> tuple[str, ...]:
    """The digests of each 64 steps, as a trace has them."""
    blocks = [tokens[:, n : n + 64].T.astype("<i4") for n in range(0, tokens.shape[1], 64)]
    return tuple(tagged_hash("tokens", block.tobytes())[:8].hex() for block in blocks)


def test_an_unknown_composer_is_an_agreed_error() -> None:
    assert shipped().request(None, 1, {}).composer == "composer1"
    with pytest.raises(TaskFailed, match="generation-rejected: 'x' is none of composer1, "):
        shipped().request("x", 1, {})


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"num_beams": 2}, "num_beams is 2, not 1"),
        ({"num_return_sequences": 2}, "num_return_sequences is 2, not 1"),
        ({"max_new_tokens": MAX_POSITIONS + 1}, "16385 tokens, at most 16384"),
    ],
    ids=str,
)
def test_what_the_engine_does_not_generate_is_an_agreed_error(
    members: Mapping[str, Any], words: str
) -> None:
    with pytest.raises(TaskFailed, match=f"generation-rejected: {words}"):
        shipped().request(None, 1, members)


def test_the_models_own_settings_count_where_a_task_has_none() -> None:
    request = shipped().request(None, 1, {})
    assert (request.steps, request.sampling) == (119, Sampling(False, 1.0, 50, 1.0))
    zero = shipped().request(None, 1, {**SAMPLED, "temperature": 0.0, "num_beams": 1})
    assert zero.sampling == Sampling(False, 1.0, 40, 0.95)


@pytest.mark.parametrize("kind", Kind)
def test_a_replay_of_the_right_tokens_gives_the_same_logits(kind: Kind) -> None:
    model = shipped(kind)
    request = model.request(None, 5, {**SAMPLED, "max_new_tokens": 70})
    steps = model.generate(request, features())
    with Pool(2) as pool:
        replayed, difference = model.replay(request, features(), steps.tokens, pool)
    assert difference is None
    assert replayed.logits.tobytes() == steps.logits.tobytes()
    wrong = model.request(None, 6, {**SAMPLED, "max_new_tokens": 70})
    _, difference = model.replay(wrong, features(), steps.tokens)
    assert isinstance(difference, Difference)
    row = steps.tokens.copy()
    row[2, 5] += 1
    _, difference = model.replay(request, features(), row)
    assert difference == Difference(0, 5, 2)


def test_an_ended_row_has_no_kept_logits() -> None:
    """Of steps 63, 127 and the last one, 129, those of the rows that still draw then."""
    model = shipped()
    tokens = np.full((4, 130), 7, np.int32)
    tokens[0, 62:] = 1  # it drew its end before step 63
    tokens[1, 63:] = 1
    tokens[2, 128:] = 1
    logits = np.arange(4 * 3 * 2, dtype=np.float32).reshape(4, 3, 2)
    kept = model.kept_logits(Steps(tokens, logits))
    expected = [
        logits[row, slot] for slot, rows in enumerate(([1, 2, 3], [2, 3], [3])) for row in rows
    ]
    assert (kept == expected).all()


def test_too_many_tokens_of_a_song_are_an_agreed_error() -> None:
    model = shipped()
    rows = model.features(song(200, RATE, 7).astype(np.float32))
    assert len(rows.spectrograms) > 64
    request = model.request(None, 1, {"max_new_tokens": MAX_POSITIONS})
    with pytest.raises(TaskFailed, match=r"generation-rejected: .* are too many"):
        model.generate(request, rows)


def test_a_stopped_job_abstains_and_steps_are_counted() -> None:
    model, control = shipped(), Control()
    request = model.request(None, 1, {"max_new_tokens": 9})
    model.generate(request, features(), control=control)
    assert control.done.value == 9
    control.stop.value = 1
    with pytest.raises(Abstained, match="stopped"):
        model.generate(request, features(), control=control)


def random_tokens(draws: np.random.Generator, size: int) -> Iterator[Any]:
    """Rows of a start token, then mostly notes, velocities and times, and ends now and then."""
    for _ in range(200):
        shape = int(draws.integers(1, 7)), int(draws.integers(1, 60))
        tokens = draws.integers(3, size, shape)
        # Few pitches, so that notes begin, end and begin again.
        few = draws.random(shape) < 0.4
        tokens[few] = 3 + draws.integers(60, 64, shape)[few]
        tokens[draws.random(shape) < 0.2] = 131 + int(draws.integers(0, 2))
        tokens[draws.random(shape) < 0.02] = int(draws.integers(0, 3))
        yield np.concatenate([np.zeros((shape[0], 1), int), tokens], axis=1).astype(np.int32)


@pytest.mark.parametrize(
    "settings",
    [{}, {"num_bars": 1}, {"default_velocity": 20, "unk_token": "2", "eos_token": "5"}],
    ids=str,
)
def test_notes_are_those_that_transformers_reads(
    settings: Mapping[str, object], folder: Path
) -> None:
    """Also of tokens that are not in the vocabulary, from 146 on."""
    rewrite(folder / "tokenizer_config.json", **settings)
    tokenizer = pop2piano.load(folder, "float32", None).tokenizer
    notation = Notation(folder)
    times = np.cumsum(np.random.default_rng(3).random(80)).astype(np.float32)
    heard = SongFeatures(np.zeros((1, 1, 1), np.float32), times[:40] + np.float32(0.3), times)
    loaded = pop2piano.LoadedPop2Piano(None, None, tokenizer, None)
    arrays = {
        "beatsteps": torch.from_numpy(heard.steps[None]),
        "extrapolated_beatstep": torch.from_numpy(times[None]),
    }
    played = 0
    for tokens in random_tokens(np.random.default_rng(2), 150):
        try:
            expected = pop2piano.read_notes(loaded, arrays, torch.from_numpy(tokens))
        except ValueError:  # a note that ends before it begins
            with pytest.raises(ValueError, match="ends before it begins"):
                [*notation.read(tokens, heard)]
            continue
        assert midi.canonical(notation.read(tokens, heard)) == expected
        played += len(expected)
    assert played > 1_000


def test_notes_outside_the_song_are_an_agreed_error() -> None:
    model, heard = shipped(), features()
    rows = len(heard.later_steps) // 8 + 1
    tokens = np.full((rows, 2), 3 + 60, np.int32)
    with pytest.raises(TaskFailed, match="generation-rejected: tokens that are no notes"):
        model.notes(heard, tokens)
    with pytest.raises(TaskFailed, match="no-notes: the model wrote no note"):
        model.notes(heard, np.full((2, 3), 133, np.int32))


def test_features_of_another_width_are_refused(folder: Path) -> None:
    for name, value, words in (
        ("feature_size", 64, "feature_size is 64; the model has 192"),
        ("hop_length", 0, "hop_length is 0"),
        ("min_frequency", "x", "min_frequency is 'x'"),
        ("window_size", 65_536.0, "window_size is 65536.0"),
    ):
        members = {"feature_size": 192, name: value}
        rewrite(folder / "processor_config.json", feature_extractor=members)
        with pytest.raises(ModelRefused, match=words):
            read_features(folder, 192)
    (folder / "processor_config.json").unlink()
    with pytest.raises(ModelRefused, match="no settings of a feature extractor"):
        read_features(folder, 192)
    rewrite(folder / "preprocessor_config.json", feature_size=192, hop_length=512)
    assert read_features(folder, 192).hop_length == 512


@pytest.mark.parametrize(
    ("file", "members", "words"),
    [
        ("vocab.json", {"1_TOKEN_DRUM": 5}, "'1_TOKEN_DRUM' is no token of Pop2Piano"),
        ("vocab.json", {"x_TOKEN_NOTE": 5}, "'x_TOKEN_NOTE' is no token of Pop2Piano"),
        ("vocab.json", {"900_TOKEN_NOTE": 5}, "900_TOKEN_NOTE is 900"),
        ("vocab.json", {"1_TOKEN_TIME": "5"}, "1_TOKEN_TIME is '5'"),
        ("tokenizer_config.json", {"default_velocity": 0}, "default_velocity is 0"),
        ("tokenizer_config.json", {"eos_token": "end"}, "eos_token is 'end'"),
        ("special_tokens_map.json", {"eos_token": "7"}, "eos_token is '[17]', or another one"),
    ],
    ids=str,
)
def test_other_notations_are_refused(
    file: str, members: Mapping[str, object], words: str, folder: Path
) -> None:
    rewrite(folder / file, **members)
    with pytest.raises(ModelRefused, match=words):
        Notation(folder)


def test_a_song_alone_and_among_others_has_the_same_cover(tmp_path: Path) -> None:
    model = shipped()
    request = model.request(None, 3, {**SAMPLED, "max_new_tokens": 40})
    paths = [written(tmp_path / f"{n}.wav", song(6, RATE, n), RATE) for n in range(2)]
    _, together = covers_of(model, request, paths)
    (alone,) = covers_of(model, request, paths[1:])
    assert alone[0] == together[0]
    assert alone[1].tokens.tobytes() == together[1].tokens.tobytes()
