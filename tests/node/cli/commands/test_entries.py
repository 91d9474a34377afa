"""What is written into a network document is what the executor does: two checks, one verdict."""

import copy
import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from executor.models import config as described
from executor.models.families import DTYPES, FAMILIES, MUSIC, Family, objection
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
def test_peers_refuse_what_the_executor_would_refuse(family: Family) -> None:
    told: Any = described.limits(family, {}, {})
    for config, dtype, bits in itertools.product(CONFIGS, DTYPE, BITS):
        args: Any = {"generation_config": config, "dtype": dtype, "quantize_bits": bits}
        here, there = objection(family, args), model_limits.objection(told, args)
        assert here.partition(":")[0] == there.partition(":")[0], args  # the same field, or none


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_every_familys_limits_fit_into_a_network_document(family: Family) -> None:
    document = copy.deepcopy(fixtures.network_document())
    document["models"][0]["limits"] = described.limits(family, {}, {})
    assert Network.parse(canonical(document)).models[fixtures.MODEL].limits["dtypes"]
