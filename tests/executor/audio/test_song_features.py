"""What a Pop2Piano model hears, against transformers' feature extractor."""

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import librosa
import numpy as np
import pytest
from transformers import Pop2PianoFeatureExtractor

from executor.audio import song_features
from executor.audio.song_features import FeatureSettings
from tests.executor.songs import RATE, song

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
OTHER = {
    "sampling_rate": 16_000,
    "window_size": 2_048,
    "hop_length": 512,
    "min_frequency": 200.0,
    "num_bars": 4,
}


@pytest.mark.parametrize(
    ("seconds", "seed", "beat", "settings"),
    [
        (8, 0, 0.5, {}),
        (6, 1, 0.41, {"feature_size": 192}),
        (14, 2, 0.63, {}),
        (9, 3, 0.4, OTHER),
        (5, 4, 0.5, {"sampling_rate": RATE, "window_size": 1_001, "feature_size": 64}),
        (5, 5, 0.5, {"sampling_rate": 48_000, "num_bars": 1, "feature_size": 64}),
    ],
)
def test_features_are_those_of_transformers(
    seconds: float, seed: int, beat: float, settings: Mapping[str, Any]
) -> None:
    audio = song(seconds, RATE, seed, beat).astype(np.float32)
    expected = Pop2PianoFeatureExtractor(**settings)(audio=audio, sampling_rate=RATE)
    features = song_features.extract(audio, RATE, FeatureSettings(**settings))
    for array, name in (
        (features.spectrograms, "input_features"),
        (features.steps[None], "beatsteps"),
        (features.later_steps[None], "extrapolated_beatstep"),
    ):
        assert array.dtype == expected[name].dtype == np.float32
        assert array.shape == expected[name].shape
        assert array.tobytes() == expected[name].tobytes()


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 32_001, 44_099, 48_000, 96_000])
@pytest.mark.parametrize("samples", [1, 40, 9_000, 20_001])
def test_resampling_is_that_of_resampy(rate: int, samples: int) -> None:
    audio = np.random.default_rng(rate).standard_normal(samples).astype(np.float32)
    if samples * rate < RATE:
        with pytest.raises(ValueError, match="too few"):
            song_features.resample(audio, RATE, rate)
        return
    expected = librosa.resample(audio, orig_sr=RATE, target_sr=rate, res_type="kaiser_best")
    result = song_features.resample(audio, RATE, rate)
    assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
    assert result.tobytes() == expected.tobytes()


@pytest.mark.parametrize("seconds", [0.1, 1])
def test_audio_without_a_beat_is_an_error(seconds: float) -> None:
    with pytest.raises(ValueError, match="beats"):
        song_features.extract(song(seconds, RATE).astype(np.float32), RATE, FeatureSettings())


def test_features_need_no_compiler_and_no_torch() -> None:
    code = (
        "import sys, numpy; from tests.executor.songs import song;"
        "from executor.audio import song_features as f;"
        "f.extract(song(5, 44100).astype('f4'), 44100, f.FeatureSettings());"
        "print(sorted({'torch', 'transformers', 'numba', 'librosa', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert result.stdout.decode().splitlines()[-1] == "[]"
