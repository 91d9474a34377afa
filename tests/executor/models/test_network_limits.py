"""The limits that a network document lists reject exactly what the executor rejects."""

import copy
import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from executor.models import config
from executor.models.families import DTYPES, FAMILIES, MUSIC, Family
from protocol import model_limits
from protocol.network import Network
from protocol.wire.encoding import canonical
from tests.support import fixtures

CONFIGS: list[Mapping[str, object] | None] = [
    None,
    {},
    *({member: None} for member in MUSIC),
    *({member: 1} for member in MUSIC),
    dict.fromkeys(MUSIC),
    dict.fromkeys(MUSIC, 1),
    {"top_k": None, "num_return_sequences": 2},
]
DTYPE = (None, "auto", *DTYPES)
BITS = (None, 4, 8)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_peers_reject_what_the_executor_rejects(family: Family) -> None:
    limits: Any = config.limits(family, {}, {})
    for generation_config, dtype, bits in itertools.product(CONFIGS, DTYPE, BITS):
        args: Any = {"generation_config": generation_config, "dtype": dtype, "quantize_bits": bits}
        executor_says = model_limits.objection(family.capabilities, args)
        peers_say = model_limits.objection(limits, args)
        # The same field, or none.
        assert executor_says.partition(":")[0] == peers_say.partition(":")[0], args


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_limits_of_every_family_are_valid_in_a_network_document(family: Family) -> None:
    document = copy.deepcopy(fixtures.network_document())
    document["models"][0]["limits"] = config.limits(family, {}, {})
    assert Network.parse(canonical(document)).models[fixtures.MODEL].limits["dtypes"]
