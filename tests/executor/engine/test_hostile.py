"""Models as strangers make them: refused, failed alike or computed, and nothing else.

`scripts/engine_sanitize` runs these with more examples, on a library that ends at the first access
out of bounds. Here they show that no other exception leaves the engine, and that it does not crash.
"""

import copy
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, note, settings
from hypothesis import strategies as st

from executor.engine.matrices import Kind, Matrices
from executor.engine.music import MusicModel
from executor.engine.pool import Pool
from executor.engine.pop2piano import Pop2Piano
from executor.errors import ModelRefused, TaskFailed
from executor.models.weights import FILE, Weights
from tests.support import invented_models
from tests.support.invented_models import TooLarge

FUZZ = settings.get_current_profile_name() == "fuzz"
EXAMPLES = 300 if FUZZ else 30
STEPS = 7
REFUSED, RUNS = "refused", "runs"

CONFIG: Mapping[str, Any] = {
    "model_type": "musicgen",
    "text_encoder": {
        "model_type": "t5",
        "vocab_size": 9,
        "d_model": 24,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 1,
        "num_heads": 3,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 20,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "relu",
    },
    "decoder": {
        "hidden_size": 32,
        "num_attention_heads": 4,
        "ffn_dim": 64,
        "vocab_size": 12,
        "num_hidden_layers": 2,
        "num_codebooks": 4,
        "max_position_embeddings": 64,
        "audio_channels": 1,
    },
    "audio_encoder": {
        "sampling_rate": 16_000,
        "codebook_size": 12,
        "compress": 2,
        "dilation_growth_rate": 2,
        "hidden_size": 6,
        "kernel_size": 3,
        "last_kernel_size": 3,
        "num_filters": 2,
        "num_lstm_layers": 1,
        "num_residual_layers": 2,
        "pad_mode": "reflect",
        "residual_kernel_size": 3,
        "trim_right_ratio": 1.0,
        "upsampling_ratios": [4, 2],
        "use_causal_conv": True,
        "use_conv_shortcut": True,
    },
}
# Values that no model has, or that are the ends of what one may have.
WILD: tuple[Any, ...] = (
    *(-1, 0, 1, 2, 3, 4, 5, 7, 8, 31, 33, 2**16, 2**20, 2**20 + 1, 2**31 - 1, 2**31, 2**32, 2**53),
    *(
        2**63 - 1,
        -(2**63),
        0.5,
        1.0,
        1e-45,
        1e-320,
        1e308,
        True,
        False,
        None,
        "",
        "relu",
        "reflect",
    ),
    *("constant", "gated-gelu", [], [1], [2, 3], [0], [1] * 16, [1024], [[]], {}),
)
PLACES = [(part, name) for part in CONFIG if part != "model_type" for name in CONFIG[part]]
KINDS = st.sampled_from(list(Kind))


def compute(folder: Path, kind: Kind) -> str:
    """Load and run a model in all ways; return what came of it. Raises what it should not."""
    try:
        model = MusicModel(folder, kind)
        request = model.request(invented_models.WORDS, [1, 2], {"max_new_tokens": STEPS})
        with Pool(2) as pool:
            for threads in (None, pool):
                steps = model.generate(request, threads)
                _, difference = model.replay(request, steps.tokens, threads)
                assert difference is None
                model.decode(steps.tokens[0], threads)
    except ModelRefused:
        return REFUSED
    except (TaskFailed, MemoryError) as failed:
        return f"failed: {failed}"
    return RUNS


@st.composite
def sizes(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a configuration of a model that may exist: all sizes small, many odd."""
    small = st.sampled_from((1, 2, 3, 5, 7, 8, 9, 16, 17, 33))
    heads, codec = draw(st.integers(1, 5)), draw(st.sampled_from((1, 2, 3)))
    encoder = {
        **CONFIG["text_encoder"],
        **{name: draw(small) for name in ("d_model", "d_kv", "d_ff", "num_heads")},
        "num_layers": draw(st.integers(1, 2)),
        "relative_attention_num_buckets": draw(st.sampled_from((4, 5, 8, 32))),
        "relative_attention_max_distance": draw(st.sampled_from((17, 20, 2**20))),
        "feed_forward_proj": draw(st.sampled_from(("relu", "gated-gelu", "gelu", "gelu_new"))),
    }
    stereo = draw(st.booleans())
    decoder = {
        **CONFIG["decoder"],
        "hidden_size": heads * draw(st.sampled_from((4, 5, 8, 9, 16, 72))),
        "num_attention_heads": heads,
        "ffn_dim": draw(small),
        "vocab_size": draw(st.integers(1, 12)),
        "num_codebooks": draw(st.integers(1, 8)) * (1 + stereo),
        "audio_channels": 1 + stereo,
    }
    causal = draw(st.booleans())
    audio = {
        **CONFIG["audio_encoder"],
        **{name: draw(small) for name in ("hidden_size", "num_filters", "dilation_growth_rate")},
        **dict.fromkeys(("kernel_size", "last_kernel_size"), draw(small)),
        "compress": draw(st.sampled_from((1, 2, 3))),
        "residual_kernel_size": draw(small),
        "num_lstm_layers": draw(st.integers(1, 3)),
        "num_residual_layers": draw(st.integers(0, 3)),
        "pad_mode": draw(st.sampled_from(("reflect", "constant"))),
        "upsampling_ratios": [draw(st.integers(1, 6)) for _ in range(codec)],
        "use_causal_conv": causal,
        "trim_right_ratio": draw(st.sampled_from((0, 0.3, 1))) if causal else 1,
        "use_conv_shortcut": draw(st.booleans()),
    }
    return {
        "model_type": "musicgen",
        "text_encoder": encoder,
        "decoder": decoder,
        "audio_encoder": audio,
    }


fuzzed = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))


@fuzzed
@given(config=sizes(), kind=KINDS)
def test_model_of_any_sizes_is_computed(
    config: dict[str, Any], kind: Kind, tmp_path_factory: pytest.TempPathFactory
) -> None:
    try:
        tensors = invented_models.invent(config)
    except (ModelRefused, TooLarge) as error:
        note(str(error))
        assume(False)
    folder = tmp_path_factory.mktemp("model")
    invented_models.write(folder, config, tensors)
    verdict = compute(folder, kind)
    if kind is Kind.INT4:  # rows must be whole groups
        assert verdict in (REFUSED, RUNS)
    else:
        assert verdict == RUNS


@pytest.fixture(scope="module")
def tensors() -> dict[str, Any]:
    return invented_models.invent(CONFIG)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Any]) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    invented_models.write(folder, CONFIG, tensors)
    return folder


def test_unchanged_model_runs(model: Path) -> None:
    assert compute(model, Kind.FLOAT32) == RUNS


@fuzzed
@given(
    changes=st.lists(
        st.tuples(st.sampled_from(PLACES), st.sampled_from(WILD)), min_size=1, max_size=3
    ),
    kind=KINDS,
    invented=st.booleans(),
)
def test_wild_setting_is_refused_fails_or_runs(
    changes: list[tuple[tuple[str, str], Any]],
    kind: Kind,
    invented: bool,
    tensors: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """With the weights of the sizes before, or with those that the settings ask for."""
    config = copy.deepcopy(dict(CONFIG))
    for (part, name), value in changes:
        config[part][name] = value
    if invented:
        try:
            tensors = invented_models.invent(config)
        except (ModelRefused, TooLarge):
            invented = False
    folder = tmp_path_factory.mktemp("wild")
    invented_models.write(folder, config, tensors)
    note(compute(folder, kind))


def test_wild_value_of_each_setting_is_refused_or_loaded(
    tensors: dict[str, Any], tmp_path: Path
) -> None:
    """With every value under `scripts/engine_sanitize`, else with a fifth of them."""
    invented_models.write(tmp_path, CONFIG, tensors)
    for number, (part, name) in enumerate(PLACES):
        for value in WILD if FUZZ else WILD[number % 5 :: 5]:
            config = copy.deepcopy(dict(CONFIG))
            config[part][name] = value
            (tmp_path / "config.json").write_text(json.dumps(config))
            try:
                MusicModel(tmp_path, Kind.FLOAT32)
            except ModelRefused:
                continue


@fuzzed
@given(data=st.data(), kind=KINDS)
def test_tensor_of_another_shape_or_dtype_is_refused_or_converted(
    data: st.DataObject, kind: Kind, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    weights = dict(Weights(model))
    name = data.draw(st.sampled_from(sorted(weights)))
    tensor = np.array(weights[name])
    way = data.draw(
        st.sampled_from(("shorter", "flat", "turned", "empty", "half", "double", "odd"))
    )
    changed = np.ascontiguousarray(_changed(data, tensor, way))
    weights[name] = changed
    folder = tmp_path_factory.mktemp("tensor")
    invented_models.write(folder, CONFIG, weights)
    verdict = compute(folder, kind)
    if way == "half":
        assert verdict == (REFUSED if kind is Kind.INT4 else RUNS)  # rows of 24 are no whole groups
    elif changed.shape != tensor.shape or way == "double":
        assert verdict == REFUSED


def _changed(data: st.DataObject, tensor: Any, way: str) -> Any:
    match way:
        case "shorter":
            return tensor[..., :-1]
        case "flat":
            return tensor.reshape(-1)
        case "turned":
            return tensor.T
        case "empty":
            return tensor[:0]
        case "half":
            return tensor.astype(np.float16)
        case "double":
            return tensor.astype(np.float64)
    return np.full_like(tensor, data.draw(st.sampled_from((np.nan, np.inf, 3e38))))


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    (size,) = struct.unpack_from("<Q", content)
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def cuts(path: Path) -> Iterator[int]:
    """Yield the lengths at which a file's structure changes, and those beside them."""
    header, content = header_of(path)
    start = path.stat().st_size - len(content)
    ends = {end for entry in header.values() for end in entry["data_offsets"]}
    for at in sorted({0, 4, 8, 16, start // 2, start, *(start + end for end in ends)}):
        yield from (length for length in (at - 1, at, at + 1) if 0 <= length < start + len(content))


def test_file_cut_anywhere_is_refused(model: Path, tmp_path: Path) -> None:
    content = (model / FILE).read_bytes()
    (tmp_path / FILE).touch()
    lengths = list(cuts(model / FILE))
    assert len(lengths) > 100
    for length in lengths:
        (tmp_path / FILE).write_bytes(content[:length])
        with pytest.raises(ModelRefused):
            Weights(tmp_path)


def lies(header: Mapping[str, Any], size: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield headers that say something else than what is in the file."""
    names = [name for name in header if name != "__metadata__"]
    for name in (names[0], names[len(names) // 2], names[-1]):
        entry = header[name]
        first, end = entry["data_offsets"]
        shape = entry["shape"]
        changes: tuple[dict[str, Any], ...] = (
            *({"data_offsets": place} for place in ([first, end + 4], [first, end - 4])),
            *({"data_offsets": place} for place in ([first + 4, end], [end, first], [-4, end])),
            *({"data_offsets": place} for place in ([0, size], [0, 2**63], [2**64 - 4, 2**64])),
            *({"data_offsets": place} for place in ([first], [], None, [0.5, end], ["0", end])),
            *({"shape": sides} for sides in ([*shape, 2], [*shape, 0], [2**62, 4], [2**63])),
            *({"shape": sides} for sides in ([-1, *shape], [2**32, 2**32], None, ["3"], [1] * 99)),
            *({"shape": [2**64 // 4 + size // 4]}, {"shape": [side + 1 for side in shape]}),
            *({"dtype": dtype} for dtype in ("F16", "F64", "I8", "BOOL", "F8_E5M2", "Q4", None)),
            {"dtype": "BF16", "shape": [*shape[:-1], 2 * shape[-1]]},
        )
        for change in changes:
            yield f"{name}: {change}", {**header, name: {**entry, **change}}
        yield f"{name} is missing", {key: header[key] for key in names if key != name}
        yield f"{name} is twice there", {**header, f"{name}.again": entry}
        yield f"{name} is no object", {**header, name: [entry]}


def test_header_that_lies_is_refused(model: Path, tmp_path: Path) -> None:
    header, content = header_of(model / FILE)
    for file in ("config.json", "tokenizer.json"):
        (tmp_path / file).write_bytes((model / file).read_bytes())
    for lie, changed in lies(header, len(content)):
        text = json.dumps(changed).encode()
        (tmp_path / FILE).write_bytes(struct.pack("<Q", len(text)) + text + content)
        assert compute(tmp_path, Kind.FLOAT32) == REFUSED, lie


@pytest.mark.parametrize("length", [0, 1, 2**16, 2**24 + 1, 2**40, 2**63, 2**64 - 1])
def test_length_of_the_header_that_lies_is_refused(
    model: Path, tmp_path: Path, length: int
) -> None:
    content = (model / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(struct.pack("<Q", length) + content[8:])
    with pytest.raises(ModelRefused):
        Weights(tmp_path)


@settings(max_examples=10 * EXAMPLES, phases=[Phase.generate])
@given(data=st.data())
def test_garbled_file_is_refused_fails_or_runs(
    data: st.DataObject, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "garbled"
    folder.mkdir(exist_ok=True)
    for file in ("config.json", "tokenizer.json"):
        (folder / file).write_bytes((model / file).read_bytes())
    content = bytearray((model / FILE).read_bytes())
    start = 8 + struct.unpack_from("<Q", content)[0]
    end = data.draw(st.sampled_from((8, start, len(content))))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    (folder / FILE).write_bytes(content)
    note(compute(folder, data.draw(KINDS)))


@pytest.mark.parametrize("token", [9, 2**31 - 1, 2**31, 2**32 - 1])
def test_tokenizer_with_more_tokens_than_the_model_fails(
    model: Path, tmp_path: Path, token: int
) -> None:
    for file in (FILE, "config.json", "tokenizer.json"):
        (tmp_path / file).write_bytes((model / file).read_bytes())
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["sad"] = token
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert compute(tmp_path, Kind.FLOAT32).startswith("failed: generation-rejected")


@pytest.mark.parametrize("prompt", ["", "a " * 16_385], ids=["no tokens", "too many"])
def test_prompt_of_no_or_too_many_tokens_fails(model: Path, prompt: str) -> None:
    loaded = MusicModel(model, Kind.FLOAT32)
    request = loaded.request(prompt, [1], {"max_new_tokens": STEPS})
    with pytest.raises(TaskFailed, match="generation-rejected"):
        loaded.generate(request)


PIANO: Mapping[str, Any] = {
    "model_type": "pop2piano",
    "vocab_size": 20,
    "composer_vocab_size": 2,
    "d_model": 16,
    "d_kv": 5,
    "d_ff": 9,
    "num_layers": 1,
    "num_decoder_layers": 2,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
PIANO_GENERATION: Mapping[str, Any] = {
    "composer_to_feature_token": {"a": 20, "b": 21},
    "decoder_start_token_id": 0,
    "eos_token_id": [1, 5],
    "pad_token_id": 2,
    "max_length": STEPS + 1,
}


@fuzzed
@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from(
                [(0, name) for name in PIANO] + [(1, name) for name in PIANO_GENERATION]
            ),
            st.sampled_from((*WILD, {"a": 0}, {"a": 3, "b": 4}, {"a": -1, "b": 0}, [0, 19, 20])),
        ),
        max_size=3,
    ),
    kind=KINDS,
)
def test_wild_setting_of_a_piano_model_is_refused_or_runs(
    changes: list[tuple[tuple[int, str], Any]], kind: Kind
) -> None:
    config, generation = dict(PIANO), dict(PIANO_GENERATION)
    for (number, name), value in changes:
        (config, generation)[number][name] = value
    tensors: dict[str, Any] = {}
    try:
        Pop2Piano(config, generation, invented_models.Invented(tensors))
        piano = Pop2Piano(config, generation, Matrices(tensors, kind))
    except (ModelRefused, TooLarge) as error:
        note(str(error))
        return
    features = np.ones((2, 4, piano.width), np.float32)
    with Pool(2) as pool:
        status, hidden = piano.encode(features, next(iter(piano.settings.composers)), pool)
        steps = min(piano.settings.steps, STEPS)
        status, drawn = piano.generate(hidden, steps, 1, piano.settings.sampling, pool)
        if status == 0:
            status, _, difference = piano.replay(
                hidden, drawn.tokens, steps, 1, piano.settings.sampling, pool
            )
            assert (status, difference) == (0, None)
