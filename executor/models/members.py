"""What members of a model's configuration files may hold: names of classes, settings, other places.

A model is what its folder holds. A member that names code, a second model, a file elsewhere, a
clock or a device is refused; names of classes and generation settings are refused unless listed.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from executor.models.families import FAMILIES
from executor.models.json_files import members
from schemas.errors import describe_value

# Members that run code from the model's folder or a hub, anywhere in a configuration.
CODE_MEMBERS = ("auto_map", "custom_pipelines", "custom_generate")
# Members that choose which weights are loaded and how: only the executor decides that.
LOADER_MEMBERS = ("transformers_weights", "quantization_config", "init_inputs")
# Members that name a second model: a processor's codec, a draft model, a pretrained backbone, the
# base of an adapter.
MODEL_MEMBERS = (
    "audio_tokenizer",
    "assistant_model",
    "backbone",
    "use_pretrained_backbone",
    "use_timm_backbone",
    "peft_config",
    "repo_id",
)
# transformers writes here where the model was loaded from, and overwrites it on loading.
OWN_NAMES = ("_name_or_path", "name_or_path")
# Many files have a path of the machine on which they were saved in this member. Nothing opens it.
UNUSED_PATH_MEMBERS = ("special_tokens_map_file",)

_MODELS = (
    *("MusicgenForConditionalGeneration", "MusicgenForCausalLM", "MusicgenModel"),
    *("MusicgenMelodyForConditionalGeneration", "MusicgenMelodyForCausalLM", "MusicgenMelodyModel"),
    *("BarkModel", "BarkSemanticModel", "BarkCoarseModel", "BarkFineModel"),
    *("CsmForConditionalGeneration", "CsmDepthDecoderForCausalLM", "CsmBackboneModel"),
    *("SeamlessM4TModel", "SeamlessM4TForTextToSpeech", "SeamlessM4TForSpeechToSpeech"),
    *("SeamlessM4Tv2Model", "SeamlessM4Tv2ForTextToSpeech", "SeamlessM4Tv2ForSpeechToSpeech"),
    *("SpeechT5ForTextToSpeech", "SpeechT5HifiGan", "VitsModel"),
    *("FastSpeech2ConformerModel", "FastSpeech2ConformerWithHifiGan"),
    *("FastSpeech2ConformerHifiGan", "Pop2PianoForConditionalGeneration"),
    *("T5EncoderModel", "T5ForConditionalGeneration", "T5Model", "T5WithLMHeadModel"),
    *("EncodecModel", "MimiModel", "SeamlessM4TCodeHifiGan", "SeamlessM4Tv2CodeHifiGan"),
)
_TOKENIZERS = (
    *("TokenizersBackend", "PreTrainedTokenizerFast", "SentencePieceBackend"),
    *("T5Tokenizer", "T5TokenizerFast", "BertTokenizer", "BertTokenizerFast"),
    *("LlamaTokenizer", "LlamaTokenizerFast", "SeamlessM4TTokenizer", "SeamlessM4TTokenizerFast"),
    *("SpeechT5Tokenizer", "VitsTokenizer", "FastSpeech2ConformerTokenizer"),
    *("Pop2PianoTokenizer", "VitsMmsTokenizer"),
)
_EXTRACTORS = (
    *("EncodecFeatureExtractor", "MusicgenMelodyFeatureExtractor", "SeamlessM4TFeatureExtractor"),
    *("SpeechT5FeatureExtractor", "Pop2PianoFeatureExtractor"),
)
_PROCESSORS = (
    *("MusicgenProcessor", "MusicgenMelodyProcessor", "BarkProcessor", "CsmProcessor"),
    *("SeamlessM4TProcessor", "SpeechT5Processor", "Pop2PianoProcessor"),
)
# Members whose value names classes of transformers, and the classes of the families here.
CLASSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "architectures": _MODELS,
        "feature_extractor_type": _EXTRACTORS,
        "image_processor_type": (),
        "video_processor_type": (),
        "processor_class": _PROCESSORS,
        "tokenizer_class": _TOKENIZERS,
    }
)
CLASS_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# The `model_type` of a part. Parts of other types could bring in models of their own.
PART_TYPES = (
    *FAMILIES,
    *("pop2piano", "t5", "encodec", "mimi", "hifigan", "musicgen_decoder"),
    *("musicgen_melody_decoder", "semantic", "coarse_acoustics", "fine_acoustics"),
    *("csm_depth_decoder_model", "t5_encoder", "fastspeech2_conformer_hifigan"),
)


def _is_int(value: object) -> bool:
    return type(value) is int


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _is_bool(value: object) -> bool:
    return type(value) is bool


def _is_token(value: object) -> bool:
    return _is_int(value) or (isinstance(value, list) and all(map(_is_int, value)))


def _is_table(value: object) -> bool:
    return isinstance(value, dict) and all(type(item) in (int, str) for item in value.values())


def _is_lists(value: object) -> bool:
    return isinstance(value, list)


def _is_any(_: object) -> bool:
    return True


Check = Callable[[object], bool]


def _named(text: str, check: Check) -> dict[str, Check]:
    return dict.fromkeys(text.split(), check)


# The generation settings that may be set: what they do follows from the model and the task alone.
# Left out are those that read a clock (max_time), choose a cache or a compiler by the device, or
# want a second model, a tokenizer or code.
SETTINGS: Mapping[str, Check] = MappingProxyType(
    {
        **_named(
            "max_length max_new_tokens min_length min_new_tokens num_beams top_k"
            " num_return_sequences no_repeat_ngram_size encoder_no_repeat_ngram_size",
            _is_int,
        ),
        **_named(
            "temperature top_p min_p top_h typical_p epsilon_cutoff eta_cutoff repetition_penalty"
            " encoder_repetition_penalty length_penalty guidance_scale min_eos_p",
            _is_number,
        ),
        **_named(
            "do_sample use_cache renormalize_logits remove_invalid_values output_attentions"
            " output_hidden_states output_scores output_logits return_dict_in_generate"
            " _from_model_config",
            _is_bool,
        ),
        **_named(
            "pad_token_id bos_token_id eos_token_id decoder_start_token_id forced_bos_token_id"
            " forced_eos_token_id suppress_tokens begin_suppress_tokens",
            _is_token,
        ),
        **_named("bad_words_ids sequence_bias exponential_decay_length_penalty", _is_lists),
        **_named("early_stopping transformers_version model_type tgt_lang _name_or_path", _is_any),
        # Of a family: languages, characters, composers.
        **_named(
            "text_decoder_lang_to_code_id t2u_lang_code_to_id vocoder_lang_code_to_id char_to_id"
            " id_to_text composer_to_feature_token",
            _is_table,
        ),
        # Of Bark.
        **_named(
            "sample_rate codebook_size text_encoding_offset text_pad_token semantic_infer_token"
            " semantic_vocab_size max_input_semantic_length coarse_semantic_pad_token"
            " coarse_infer_token max_coarse_input_length max_coarse_history sliding_window_len"
            " n_coarse_codebooks max_fine_history_length max_fine_input_length n_fine_codebooks",
            _is_int,
        ),
        **_named("semantic_rate_hz coarse_rate_hz", _is_number),
    }
)
BARK_PARTS = ("semantic_config", "coarse_acoustics_config", "fine_acoustics_config")
# Settings of generate that a config.json could bring in, where transformers reads them too.
FOREIGN_SETTINGS = _named(
    "max_time stop_strings cache_implementation cache_config max_cache_len watermarking_config"
    " token_healing is_assistant num_assistant_tokens num_assistant_tokens_schedule"
    " assistant_confidence_threshold prompt_lookup_num_tokens max_matching_ngram_size"
    " assistant_early_exit assistant_lookbehind target_lookbehind assistant_ensemble_weight"
    " speculation_type use_mtp compile_config disable_compile continuous_batching_config low_memory"
    " penalty_alpha dola_layers diversity_penalty num_beam_groups constraints force_words_ids"
    " prefill_chunk_size use_model_defaults",
    _is_any,
)
# Values with which old versions saved some of them, and which set nothing.
DEFAULTS: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        **dict.fromkeys(("diversity_penalty", "low_memory", "token_healing"), (0.0, False)),
        **dict.fromkeys(("is_assistant", "disable_compile", "use_mtp"), (False,)),
        "num_beam_groups": (1,),
        "num_assistant_tokens": (20, 5),
        "num_assistant_tokens_schedule": ("constant", "heuristic"),
        "assistant_confidence_threshold": (0.4,),
        "assistant_lookbehind": (10,),
        "target_lookbehind": (10,),
    }
)
NOTHING: tuple[object, ...] = (None, [], {})


def member_problem(key: str, value: object, names: set[str]) -> str:
    """Return why a member of any configuration is refused, "" if it is not.

    `names` are the files of its folder.
    """
    if key in CODE_MEMBERS or key.removeprefix("_").startswith("attn_implementation"):
        return f"sets {key}: only code of this program runs"
    if value in NOTHING:
        return ""
    if key in LOADER_MEMBERS:
        return f"sets {key}: only this program decides what is loaded"
    if names_model(key, value):
        return f"names a second model in {key}: {describe_value(value)}"
    if key in CLASSES:
        return class_problem(key, value)
    if names_other_file(key, value, names):
        return f"names another file in {key}: {describe_value(value)}"
    return ""


def names_model(key: str, value: object) -> bool:
    """Return whether a member names a model by id or path, outside the folder and digest."""
    if key in OWN_NAMES:
        return False
    return value is not False and (
        key in MODEL_MEMBERS
        or key.endswith(("name_or_path", "model_path", "model_id"))
        or key.startswith(("audio_tokenizer_", "assistant_model", "adapter_"))
    )


def class_problem(key: str, value: object) -> str:
    """Return why a member that names classes is refused, "" if each is one of the families'."""
    classes = value if isinstance(value, list) else [value]
    if (key == "architectures") != isinstance(value, list):
        kind = "a list of names" if key == "architectures" else "a name"
        return f"has no {key}: it must be {kind}, not {describe_value(value)}"
    for name in classes:
        if not isinstance(name, str) or not CLASS_NAME.fullmatch(name):
            return f"names code in {key}: {describe_value(name)}"
        if name not in CLASSES[key]:
            return f"names a class in {key} that no family here has: {describe_value(name)}"
    return ""


def names_other_file(key: str, value: object, names: set[str]) -> bool:
    """Return whether a member names a file that is not in the folder."""
    is_file_name = key.endswith("_file") and key not in UNUSED_PATH_MEMBERS
    return is_file_name and isinstance(value, str) and value not in names


def config_problem(document: Mapping[str, object]) -> str:
    """Return why a config.json is refused for a setting or the type of a part; "" if it is not."""
    for key, value in members(document):
        harmless = (None, *DEFAULTS.get(key, ()))
        if key in FOREIGN_SETTINGS and value not in (*harmless, [], {}):
            return f"sets {key}: a clock, a device or a second model would decide the sound"
        if key == "model_type" and value is not document.get(key) and value not in PART_TYPES:
            return f"has a part of the model_type {describe_value(value)}: no family here has one"
    return ""


def settings_problem(document: Mapping[str, object]) -> str:
    """Return why a generation_config.json is refused, "" if each of its settings is allowed."""
    for key, value in document.items():
        if key in BARK_PARTS and isinstance(value, dict):
            if problem := settings_problem(value):
                return problem
            continue
        if value in NOTHING or value in DEFAULTS.get(key, ()):
            continue
        # The settings of CSM's second part, and of its first.
        plain = key.removeprefix("depth_decoder_").removeprefix("backbone_")
        if plain not in SETTINGS:
            return f"sets {key}, which is not one of the settings that a task's result may follow"
        if not SETTINGS[plain](value):
            return f"has a {key} of the wrong type: {describe_value(value)}"
    return ""
