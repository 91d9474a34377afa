"""Piano covers through the real worker: that they are the library's, and always the same bytes."""

import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pretty_midi
import pytest

import schemas
from executor.audio import midi, piano_synth
from executor.determinism import profile
from executor.errors import Abstained
from executor.job import Execution, Job, ModelRef
from executor.models.folders import describe_model
from executor.worker.supervisor import WorkerSupervisor
from protocol.model_limits import objection
from tests.executor.conftest import TIMEOUT, Run, digests
from tests.executor.delivery import delivered
from tests.executor.pianos import changed, cover_job, named


def entries(execution: Execution) -> list[dict[str, Any]]:
    result = execution.outcome["result"]
    assert isinstance(result, dict)
    return list(result["outputs"])


def read(path: Path) -> tuple[midi.Note, ...]:
    """The notes of a MIDI file, as pretty_midi reads them."""
    score = pretty_midi.PrettyMIDI(io.BytesIO(path.read_bytes()))
    (piano,) = score.instruments
    assert (piano.program, piano.is_drum) == (0, False)
    return midi.canonical((n.start, n.end, n.pitch, n.velocity) for n in piano.notes)


# The reference document's own code, in a process of its own, with the seed that a task has. Where
# no end token came, it fails in reading the notes; there it is given one.
DOCUMENT = """
import json, sys
import torch
torch.set_num_threads(1)
torch.backends.mkldnn.enabled = False
torch.use_deterministic_algorithms(True)
import librosa
from transformers import (
    Pop2PianoFeatureExtractor,
    Pop2PianoForConditionalGeneration,
    Pop2PianoProcessor,
    Pop2PianoTokenizer,
    set_seed,
)
folder, single, several = sys.argv[1], *map(json.loads, sys.argv[2:])

def generated(composer, settings, *paths, processor=None):
    key = (composer, tuple(settings.items()), paths, processor)
    if key not in memory:
        memory[key] = generate(composer, settings, paths, processor)
    processor, inputs, output = memory[key]
    return processor, inputs, output.clone()

memory = {}

def generate(composer, settings, paths, processor):
    model = Pop2PianoForConditionalGeneration.from_pretrained(folder)
    processor = processor or Pop2PianoProcessor.from_pretrained(folder)
    audio = [librosa.load(path, sr=44100) for path in paths]
    if len(paths) == 1:
        inputs = processor(audio=audio[0][0], sampling_rate=audio[0][1], return_tensors="pt")
    else:
        sounds, rates = map(list, zip(*audio))
        inputs = processor(
            audio=sounds, sampling_rate=rates, return_attention_mask=True, return_tensors="pt"
        )
        settings = {**settings, "attention_mask": inputs["attention_mask"]}
    set_seed(1)
    output = model.generate(
        input_features=inputs["input_features"], composer=composer, **settings
    )
    return processor, inputs, output

def notes(score):
    played = score.instruments[0].notes
    return [(float(n.start), float(n.end), int(n.pitch), int(n.velocity)) for n in played]

covers = []
for case in single:
    processor, inputs, output = generated(*case)
    ended = bool((output == 1).any())
    if not ended:
        output = torch.nn.functional.pad(output, (0, 1), value=1)
    made = processor.batch_decode(token_ids=output, feature_extractor_output=inputs)
    covers.append([ended, notes(made["pretty_midi_objects"][0])])

equal = []
for composer, settings, *paths in several:
    *_, together = generated(composer, settings, *paths)
    alone = [generated(composer, settings, path)[2] for path in paths]
    rows, place = [], 0
    for each in alone:
        width = min(each.shape[1], together.shape[1])
        here = together[place : place + each.shape[0]]
        rows.append(bool((here[:, :width] == each[:, :width]).all()))
        place += each.shape[0] + 1
    equal.append(rows)

pairs = []
hearing = Pop2PianoFeatureExtractor.from_pretrained(folder)
for listens, reads in ((None, None), (hearing, Pop2PianoTokenizer.from_pretrained(folder))):
    processor, inputs, output = generated(*several[0], processor=listens)
    output = torch.nn.functional.pad(output, (0, 1), value=1)
    made = (reads or processor).batch_decode(token_ids=output, feature_extractor_output=inputs)
    pairs.append([notes(score) for score in made["pretty_midi_objects"]])

processor, inputs, output = generated("composer1", {"min_length": 3}, *several[0][2:], single[0][2])
output[:, -1] = 1
try:
    processor.batch_decode(token_ids=output, feature_extractor_output=inputs)
    three = ""
except ValueError as error:
    three = str(error)
print(json.dumps([covers, equal, pairs, three]))
"""
Settings = dict[str, object]
SAMPLED: Settings = {"do_sample": True, "temperature": 0.9, "top_k": 40, "top_p": 0.95}
BEAMS: Settings = {"num_beams": 3}
CASES: tuple[tuple[str, Settings, str], ...] = (
    ("composer1", {}, "mono"),
    ("composer2", {}, "stereo"),
    ("composer3", {"max_new_tokens": 30}, "low"),
    ("composer1", SAMPLED, "mono"),
    ("composer1", BEAMS, "low"),
    ("composer1", {**BEAMS, **SAMPLED}, "mono"),
)
BATCHES: tuple[tuple[Any, ...], ...] = (
    ("composer1", {}, "mono", "low"),
    ("composer1", {}, "low", "stereo"),
    ("composer1", SAMPLED, "mono", "low"),
)


@pytest.fixture(scope="session")
def documented(
    piano: ModelRef, songs: Mapping[str, Path], folders: Path, first_cover: Execution
) -> list[Any]:
    """What the document's code makes of `CASES` and `BATCHES`, and of three files in a batch."""
    lists = [
        [[*case[:2], *(str(songs[n]) for n in case[2:])] for case in c] for c in (CASES, BATCHES)
    ]
    done = subprocess.run(
        [sys.executable, "-c", DOCUMENT, str(folders / piano.id), *map(json.dumps, lists)],
        # In the home of the shared worker, where numba's kernels are.
        env=profile.child_environment(first_cover.files[0].parent / "home"),
        check=True,
        stdout=subprocess.PIPE,
    )
    return list(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("number", range(len(CASES)))
def test_cover_equals_the_reference_code(number: int, cover: Run, documented: list[Any]) -> None:
    composer, settings, name = CASES[number]
    execution = cover(name, composer=composer, generation_config=settings)
    _, expected = documented[0][number]
    assert execution.files[0].read_bytes() == midi.encode(midi.canonical(expected))


def test_reference_covers_include_some_without_end_token(documented: list[Any]) -> None:
    assert {ended for ended, _ in documented[0]} == {True, False}


def test_what_a_batch_with_an_attention_mask_makes(documented: list[Any]) -> None:
    """Why files run one by one: greedily a batch writes the same tokens for each file as the file
    alone; drawn at random it does not; and of three files transformers cannot read the notes.
    """
    _, equal, _, three = documented
    assert equal == [[True, True], [True, True], [False, False]]
    assert three == "zero-size array to reduction operation maximum which has no identity"


def test_two_files_get_what_the_documents_batch_gives_them(
    cover: Run, documented: list[Any]
) -> None:
    """By the processor, and by the feature extractor and the tokenizer apart."""
    scores = [path.read_bytes() for path in cover("mono", "low").files[::2]]
    by_processor, apart = documented[2]
    assert [midi.encode(midi.canonical(notes)) for notes in by_processor] == scores
    assert apart == by_processor


@pytest.mark.parametrize("sampling", [{}, SAMPLED], ids=str)
def test_cover_does_not_depend_on_other_inputs(cover: Run, sampling: dict[str, Any]) -> None:
    alone = {
        name: digests(cover(name, generation_config=sampling)) for name in ("mono", "stereo", "low")
    }
    for names in (["mono", "stereo", "low"], ["low", "mono", "low"]):
        together = digests(cover(*names, generation_config=sampling))
        assert together == [digest for name in names for digest in alone[name]]
    assert len({digest for pair in alone.values() for digest in pair}) == 6


def test_the_manifest_describes_the_files(cover: Run) -> None:
    execution = cover("mono", "stereo")
    schemas.check("outcome", execution.outcome)
    outputs = entries(execution)
    assert [output["media"] for output in outputs] == ["audio/midi", "audio/f32"] * 2
    assert [path.suffix for path in execution.files] == [".mid", ".f32"] * 2
    for path, output in zip(execution.files, outputs, strict=True):
        content = path.read_bytes()
        assert output["sha256"] == hashlib.sha256(content).hexdigest()
        assert output["size"] == len(content)


def test_the_waveform_is_the_rendered_midi_file(cover: Run) -> None:
    execution = cover()
    score, waveform = entries(execution)
    notes = read(execution.files[0])
    assert score["notes"] == len(notes) > 20
    assert execution.files[0].read_bytes() == midi.encode(notes)
    assert execution.files[1].read_bytes() == piano_synth.render(notes).astype("<f4").tobytes()
    assert (waveform["sampling_rate"], waveform["channels"]) == (piano_synth.RATE, 1)
    seconds = waveform["frames"] / piano_synth.RATE
    assert 6 < seconds < 14


def test_the_same_bytes_cold_warm_and_after_other_tasks(
    cover: Run, run: Run, folders: Path, piano: ModelRef, songs: Mapping[str, Path]
) -> None:
    first = cover("mono", generation_config=SAMPLED)
    expected = digests(first)
    assert digests(cover("mono", again=True, generation_config=SAMPLED)) == expected
    run(again=True, generation={"do_sample": False})
    cover("low", again=True, dtype="bfloat16", composer="composer2")
    short = {"num_beams": 2, "max_new_tokens": 5, "temperature": 0, "top_k": 3}
    cover("stereo", again=True, generation_config=short)
    assert digests(cover("mono", again=True, generation_config=SAMPLED)) == expected
    supervisor = WorkerSupervisor(
        [folders], first.files[0].parent
    )  # the same home: what numba compiled is there
    try:
        assert supervisor.start(TIMEOUT).ok
        assert "essentia" not in Path(f"/proc/{supervisor.pid}/maps").read_text()
        job = cover_job(piano, [songs["mono"]], {"generation_config": SAMPLED})
        assert digests(supervisor.run(job, timeout=TIMEOUT, progress=lambda _: None)) == expected
        assert "essentia" in Path(f"/proc/{supervisor.pid}/maps").read_text()
    finally:
        supervisor.close()


@pytest.mark.parametrize(
    ("args", "config"),
    [
        ({"seed": 2}, {}),
        ({"seed": 2**32 - 1}, {}),
        ({}, {"max_new_tokens": 31}),
        ({}, {"do_sample": False}),
        ({}, {"temperature": 0.5}),
        ({}, {"temperature": 0}),
        ({}, {"top_k": 2}),
        ({}, {"top_p": 0.3}),
        ({}, {"num_beams": 2}),
    ],
    ids=str,
)
def test_every_sampling_argument_changes_the_output(
    cover: Run, args: dict[str, Any], config: dict[str, Any]
) -> None:
    sampled = {"do_sample": True, "max_new_tokens": 32}
    changed = cover(generation_config={**sampled, **config}, **args)
    assert digests(changed) != digests(cover(generation_config=sampled))


@pytest.mark.parametrize(
    "args",
    [
        {"composer": "composer2"},
        {"composer": "composer3"},
        {"dtype": "float16"},
        {"dtype": "bfloat16"},
        {"quantize_bits": 8},
        {"quantize_bits": 4},
        {"generation_config": {"num_beams": 3}},
    ],
    ids=str,
)
def test_every_argument_changes_the_output(
    cover: Run, own: list[str], args: dict[str, Any]
) -> None:
    assert digests(cover(**args)) != own


@pytest.mark.parametrize(
    "args",
    [
        {"composer": None},
        {"composer": "composer1"},
        {"generation_config": None},
        {"generation_config": {}},
        {"generation_config": {"max_new_tokens": None, "num_beams": None, "do_sample": None}},
        {"generation_config": {"num_return_sequences": 1, "num_beams": 1, "top_p": 1.0}},
        {"generation_config": {"max_new_tokens": 47}},
        {"dtype": None, "quantize_bits": None},
        {"dtype": "auto"},
        {"dtype": "float32"},
        {"seed": 7},
    ],
    ids=str,
)
def test_null_and_left_out_are_the_models_own(
    cover: Run, own: list[str], args: dict[str, Any]
) -> None:
    """The tiny model's own: greedy, 48 tokens with the first, which is given."""
    assert digests(cover(**args)) == own


def test_temperature_zero_is_greedy(cover: Run, own: list[str]) -> None:
    for sampling in ({}, {"do_sample": True}, {"do_sample": False}):
        config = {"temperature": 0, **sampling}
        assert digests(cover(seed=3, generation_config=config)) == own


@pytest.mark.parametrize(
    ("names", "args", "code", "expected_detail"),
    [
        (["text"], {}, "input-undecodable", "neither WAV (PCM, float) nor FLAC"),
        (["mono", "text"], {}, "input-undecodable", "neither WAV (PCM, float) nor FLAC"),
        (["broken"], {}, "input-undecodable", "Format not recognised."),
        (["mono"], {"composer": "Composer1"}, "generation-rejected", "'Composer1' is none of"),
        (["mono"], {"composer": "generation_config"}, "generation-rejected", "is none of"),
        (["second"], {}, "no-notes", "no beat"),
        (["mono", "second"], {}, "no-notes", "no beat"),
        (["silence"], {"composer": "composer2"}, "no-notes", "the model wrote no note"),
    ],
    ids=str,
)
def test_deterministic_failures_are_outcomes(
    cover: Run, names: list[str], args: dict[str, Any], code: str, expected_detail: str
) -> None:
    scratch = cover().files[0].parent
    files = set(scratch.iterdir())
    execution = cover(*names, **args)
    assert execution.outcome == {"error": code}
    detail = str(execution.trace["detail"])
    assert expected_detail in detail
    assert "input-0" not in detail
    assert execution.files == ()
    assert set(scratch.iterdir()) == files


def test_silence_can_be_covered(cover: Run) -> None:
    assert entries(cover("silence"))[0]["notes"] > 0


def test_as_many_tokens_as_positions_run_and_more_are_refused_with_numbers(
    cover: Run, folders: Path, piano: ModelRef
) -> None:
    model = changed(folders, "config.json", {"n_positions": 64})
    limits: Any = describe_model(folders / model.id)["limits"]
    assert limits["max_new_tokens"] == 64
    # The second is a task under a wrong limit. The positions are relative: they do not end.
    for tokens in (64, 129):
        execution = cover(model=model, generation_config={"max_new_tokens": tokens})
        assert "result" in execution.outcome
    assert objection(limits, {"generation_config": {"max_new_tokens": 65}}) == (
        "args.generation_config.max_new_tokens: 65 is over this model's limit, 64"
    )


def test_progress_rises_over_all_files(
    supervisor: WorkerSupervisor, piano: ModelRef, songs: Mapping[str, Path]
) -> None:
    shares: list[float] = []
    job = cover_job(piano, [songs["mono"], songs["low"]], {})
    supervisor.run(job, timeout=TIMEOUT, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    # Of 48 steps the first of each file: listening takes longer than the pause between tellings.
    assert {1 / 96, 0.5 + 1 / 96} <= set(shares)


def test_the_trace_has_a_digest_of_each_files_tokens(cover: Run) -> None:
    config = {"max_new_tokens": 70, "do_sample": True}
    tokens = cover("mono", "low", generation_config=config).trace["tokens"]
    assert isinstance(tokens, list)
    assert [len(digests) for digests in tokens] == [2, 2]
    assert tokens[0] != tokens[1]


def test_wrong_or_missing_input_is_an_abstention(
    supervisor: WorkerSupervisor,
    piano: ModelRef,
    songs: Mapping[str, Path],
    cover: Run,
    own: list[str],
) -> None:
    args = {"model": piano.id, "seed": 1, "audio": [named(songs["mono"])]}
    for paths in ([songs["low"]], [songs["mono"].with_name("none")], [], [songs["mono"]] * 2):
        with pytest.raises(Abstained) as caught:
            supervisor.run(
                Job("task", "pop2piano", delivered(args), piano, tuple(paths)),
                timeout=TIMEOUT,
                progress=lambda _: None,
            )
        assert caught.value.reason == "input-missing"
    assert digests(cover(again=True)) == own


def test_a_model_of_another_kind_is_refused(
    cover: Run, run: Run, embedded: ModelRef, piano: ModelRef
) -> None:
    with pytest.raises(Abstained, match="model_type: must be pop2piano") as caught:
        cover(model=embedded)
    assert caught.value.reason == "model-missing"
    with pytest.raises(Abstained, match="pop2piano") as caught:
        run(model=piano)
    assert caught.value.reason == "model-missing"
