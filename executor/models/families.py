"""The model families that text-to-music runs, and what each can do exactly: one table.

A *family* is a `model_type` of a model's config.json that `TextToAudioPipeline` of the pinned
transformers lists. A family that cannot do an argument exactly as the reference document of the
text-to-music task words it refuses the task. This module reads no files and imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from protocol.wire.encoding import Document
from schemas.errors import describe_value

SAMPLING = ("do_sample", "temperature", "top_k", "top_p")
LENGTH = "max_new_tokens"
SEQUENCES = "num_return_sequences"
GUIDANCE = "guidance_scale"
DTYPES = ("float32", "float16", "bfloat16")
# FastSpeech2's spectrogram is float32 whatever its weights are.
FLOAT32_ONLY = DTYPES[:1]


@dataclass(frozen=True, slots=True)
class Family:
    """What one class of model takes.

    `honours` are the members of generation_config that it does exactly. `dtypes` and `bits` are the
    precisions and quantisations that it computes in. `processor`: it needs an `AutoProcessor`.
    `vocoder`: it makes a spectrogram, and the folder `vocoder` within the model's holds the rest.
    `criteria` is the argument of its generate that takes stopping criteria, "" if none does.
    """

    name: str
    honours: tuple[str, ...]
    dtypes: tuple[str, ...] = DTYPES
    bits: tuple[int, ...] = (4, 8)
    processor: bool = False
    vocoder: bool = False
    criteria: str = ""

    @property
    def traces_tokens(self) -> bool:
        """Whether its generate calls a hook at each token: a criterion, or CSM's streamer."""
        return bool(self.criteria) or self.name == "csm"

    @property
    def capabilities(self) -> Document:
        """What it can do, as the `limits` of a network document have it (section 3)."""
        return {
            "generation_config": list(self.honours),
            "dtypes": list(self.dtypes),
            "quantize_bits": list(self.bits),
        }


MUSIC = (LENGTH, *SAMPLING, SEQUENCES, GUIDANCE)
# No guidance: these models have no unconditional branch to guide away from.
SPEECH = (LENGTH, *SAMPLING, SEQUENCES)
CRITERIA = "stopping_criteria"


# The families that the engine computes too (`executor.engine`).
ENGINE_FAMILIES = ("musicgen", "musicgen_melody", "pop2piano")


def _families(*families: Family) -> Mapping[str, Family]:
    return MappingProxyType({family.name: family for family in families})


# 4 bits need matrices of whole blocks (`load_model.BLOCKS`), which several families do not have.
FAMILIES = _families(
    Family("musicgen", MUSIC, criteria=CRITERIA),
    Family("musicgen_melody", MUSIC, bits=(8,), criteria=CRITERIA),
    Family("bark", SPEECH, processor=True, criteria=CRITERIA),
    # It ignores other stopping criteria than its own.
    Family("csm", SPEECH),
    Family("seamless_m4t", SPEECH, bits=(8,), criteria=CRITERIA),
    Family("seamless_m4t_v2", SPEECH, bits=(8,), criteria="text_stopping_criteria"),
    # It samples no tokens and decides itself how long it speaks.
    Family("speecht5", (SEQUENCES,), bits=(8,), vocoder=True),
    # These compute the whole sound in one pass and take no generation_config.
    Family("vits", (), bits=(8,)),
    Family("fastspeech2_conformer", (), FLOAT32_ONLY, (8,), vocoder=True),
    Family("fastspeech2_conformer_with_hifigan", (), FLOAT32_ONLY, (8,)),
)

_ELSEWHERE = (
    "its processor loads a second model, the audio tokenizer, from whatever place its "
    "configuration names: outside the folder and the digest"
)
_ANSWERS = (
    "it converses: its generate returns the text of an answer first, which the pipeline "
    "takes for the waveform"
)
# The other families that the pipeline lists, each with the reason why no task can use it.
REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "gradium_phonon_tts": f"{_ELSEWHERE}; and it wants a recorded voice besides the prompt",
        "pocket_tts": f"{_ELSEWHERE}; and it wants a recorded voice besides the prompt",
        "higgs_audio_v2": _ELSEWHERE,
        "vibevoice": "its noise schedule is code of diffusers, chosen by name in its "
        "configuration; no class of this network has diffusers",
        "qwen2_5_omni": f"its voices are a pickle, spk_dict.pt; and {_ANSWERS}",
        "qwen3_omni_moe": _ANSWERS,
    }
)


def refusal(model_type: object) -> str:
    """Return why no model of this type is loaded; "" if it is one of `FAMILIES`."""
    if not isinstance(model_type, str):
        return f"model_type: must be a name, not {describe_value(model_type)}"
    if model_type in FAMILIES:
        return ""
    if model_type in REFUSED:
        return f"{model_type} models are not supported: {REFUSED[model_type]}"
    return f"{describe_value(model_type)} is no model of transformers' TextToAudioPipeline"
