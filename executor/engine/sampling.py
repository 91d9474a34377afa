"""How tokens are chosen, and what a model's own settings say of it."""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from executor.engine.library import MAX_POSITIONS
from executor.errors import ModelRefused
from executor.models.json_files import check_integer

# What transformers uses where a configuration has no value.
DEFAULT_STEPS, DEFAULT_TOP_K = 20, 50


class SamplingStruct(ctypes.Structure):
    """`he_sampling`."""

    _fields_ = (
        ("sample", ctypes.c_int32),
        ("top_k", ctypes.c_int32),
        ("temperature", ctypes.c_float),
        ("top_p", ctypes.c_float),
    )


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. `guidance` above 1 computes each step without the prompt too."""

    sample: bool = True
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0

    def rule(self) -> SamplingStruct:
        """Return it as the C library takes it. Raises `ValueError`."""
        if self.temperature <= 0:
            raise ValueError(f"the engine cannot sample so: {self}")
        return SamplingStruct(self.sample, self.top_k, self.temperature, self.top_p)


def task_sampling(own: Sampling, members: Mapping[str, Any]) -> Sampling:
    """Return how a task chooses tokens: as the model does where `members` are silent.

    `members` are those of the task's `generation_config` that are not null. Temperature 0 means
    greedy decoding, a guidance scale of at most 1 none (specification 8).
    """
    sampling = replace(
        own,
        sample=members.get("do_sample", own.sample),
        temperature=float(members.get("temperature", own.temperature)),
        top_k=members.get("top_k", own.top_k),
        top_p=float(members.get("top_p", own.top_p)),
        guidance=max(1.0, float(members.get("guidance_scale", own.guidance))),
    )
    if sampling.temperature == 0:
        return replace(sampling, sample=False, temperature=1.0)
    return sampling


def read_steps(generation: Mapping[str, Any]) -> int:
    """Return the most tokens of a row, as transformers counts them. Raises `ModelRefused`."""
    steps = generation.get("max_new_tokens")
    if steps is not None:
        return check_integer("max_new_tokens", steps, 1, MAX_POSITIONS)
    length = generation.get("max_length")
    if length is None:
        return DEFAULT_STEPS
    return check_integer("max_length", length, 2, MAX_POSITIONS) - 1  # without the first token


def read_sampling(generation: Mapping[str, Any]) -> Sampling:
    """Return how a model chooses tokens. Raises `ModelRefused`."""
    values: dict[str, Any] = {
        "do_sample": False,
        "temperature": 1.0,
        "top_k": DEFAULT_TOP_K,
        "top_p": 1.0,
    }
    for name in values:
        if generation.get(name) is not None:
            values[name] = generation[name]
    if values["do_sample"] not in (True, False):
        raise ModelRefused(f"do_sample is {values['do_sample']!r:.80}")
    check_integer("top_k", values["top_k"], 0, 2**31 - 1)
    for name in ("temperature", "top_p"):
        value = values[name]
        if type(value) not in (int, float) or not 0 < value <= (1 if name == "top_p" else 1e6):
            raise ModelRefused(f"{name} is {value!r:.80}")
    return Sampling(
        values["do_sample"], float(values["temperature"]), values["top_k"], float(values["top_p"])
    )
