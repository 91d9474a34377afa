"""Which classes of model make music or speech from text, and what each can do exactly: one table.

A *family* is a `model_type` of a model's config.json that `TextToAudioPipeline` of the pinned
transformers lists. What a family cannot do exactly as the reference document of the text-to-music
task words it is refused, never done differently. Files and dictionaries only: no torch here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from schemas.errors import shown

SAMPLING = ("do_sample", "temperature", "top_k", "top_p")
LENGTH = "max_new_tokens"
SEQUENCES = "num_return_sequences"
GUIDANCE = "guidance_scale"
DTYPES = ("float32", "float16", "bfloat16")
FULL = DTYPES[:1]  # its spectrogram is float32 whatever its weights are

# Why a member of generation_config is nothing to a family.
NO_TOKENS = "samples no tokens"
OWN_LENGTH = "decides itself how long it speaks"
WHOLE = "computes the whole sound in one pass and takes no generation_config"
NO_CONDITION = "has no unconditional branch to guide away from"


@dataclass(frozen=True, slots=True)
class Family:
    """What one class of model takes.

    `honours` are the members of generation_config that it does exactly, `reasons` say why not the
    others ("" for any). `dtypes` and `bits` are the precisions and quantisations it computes in.
    `vocoder`: it makes a spectrogram, and the folder `vocoder` within the model's holds the rest.
    `criteria`: what its generate calls stopping criteria, "" if it takes none.
    """

    name: str
    honours: tuple[str, ...]
    reasons: Mapping[str, str]
    dtypes: tuple[str, ...] = DTYPES
    bits: tuple[int, ...] = (4, 8)
    processor: bool = False
    vocoder: bool = False
    criteria: str = ""


MUSIC = (LENGTH, *SAMPLING, SEQUENCES, GUIDANCE)
SPEECH = (LENGTH, *SAMPLING, SEQUENCES)


def _families(*families: Family) -> Mapping[str, Family]:
    return MappingProxyType({family.name: family for family in families})


FAMILIES = _families(
    Family("musicgen", MUSIC, {}, criteria="stopping_criteria"),
    Family("musicgen_melody", MUSIC, {}, bits=(8,), criteria="stopping_criteria"),
    Family(
        "bark",
        SPEECH,
        {GUIDANCE: NO_CONDITION},
        processor=True,
        criteria="stopping_criteria",
    ),
    Family("csm", SPEECH, {GUIDANCE: NO_CONDITION}),
    Family(
        "seamless_m4t",
        SPEECH,
        {GUIDANCE: NO_CONDITION},
        bits=(8,),
        criteria="stopping_criteria",
    ),
    Family(
        "seamless_m4t_v2",
        SPEECH,
        {GUIDANCE: NO_CONDITION},
        bits=(8,),
        criteria="text_stopping_criteria",
    ),
    Family(
        "speecht5",
        (SEQUENCES,),
        {
            **dict.fromkeys(SAMPLING, NO_TOKENS),
            LENGTH: OWN_LENGTH,
            GUIDANCE: NO_CONDITION,
        },
        bits=(8,),
        vocoder=True,
    ),
    Family("vits", (), {"": WHOLE}, bits=(8,)),
    Family("fastspeech2_conformer", (), {"": WHOLE}, FULL, (8,), vocoder=True),
    Family("fastspeech2_conformer_with_hifigan", (), {"": WHOLE}, FULL, (8,)),
)

_ELSEWHERE = (
    "its processor loads a second model, the audio tokenizer, from whatever place its "
    "configuration names: outside the folder and the digest"
)
_ANSWERS = (
    "it converses: its generate returns the text of an answer first, which the pipeline "
    "takes for the waveform"
)
# The rest of what the pipeline lists, each with the reason why no task can name it.
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
    """Why no model of this type is loaded; "" if it is one of `FAMILIES`."""
    if not isinstance(model_type, str):
        return f"model_type: must be a name, not {shown(model_type)}"
    if model_type in FAMILIES:
        return ""
    if model_type in REFUSED:
        return f"{model_type} models are not supported: {REFUSED[model_type]}"
    return f"{shown(model_type)} is no model of transformers' TextToAudioPipeline"


def objection(family: Family, args: Mapping[str, object]) -> str:
    """What of a task's arguments the family cannot do exactly, naming the field; "" if nothing.

    A family that takes no generation_config at all refuses one even if it is empty: only left out
    or null it is surely not meant.
    """
    config = args.get("generation_config")
    asked = _set(config) if isinstance(config, Mapping) else ()
    for member in asked:
        if member not in family.honours:
            why = family.reasons.get(member) or family.reasons.get("", "does not take it")
            return f"args.generation_config.{member}: {family.name} {why}"
    if config is not None and not family.honours:
        return f"args.generation_config: {family.name} {family.reasons['']}"
    dtype, bits = args.get("dtype"), args.get("quantize_bits")
    if dtype not in (None, "auto", *family.dtypes):
        return f"args.dtype: {family.name} does not compute in {dtype}"
    if bits is not None and bits not in family.bits:
        return f"args.quantize_bits: {family.name} does not compute in {bits} bits"
    return ""


def _set(config: Mapping[str, object]) -> Iterable[str]:
    return tuple(name for name, value in config.items() if value is not None)
