"""Some minutes' worth of `scripts/fuzz`, the same inputs each time; what it found stays fixed."""

from collections import Counter
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import mutation
from tests.fuzz.target import Target, fire
from tests.fuzz.targets import TARGETS

EACH = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
SEEDS = 1_500  # inputs near valid ones for each target: a minute of processor time
RAW = 60  # inputs of any bytes


@EACH
def test_what_is_near_something_valid(target: Target) -> None:
    """Every verdict is one that is allowed; some inputs pass, so that all of the parser is met."""
    verdicts: Counter[str] = Counter()

    @settings(
        max_examples=SEEDS,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(seed=st.integers(0, 2**48))
    def spoil(seed: int) -> None:
        verdicts[fire(target, target.make(Random(seed)))] += 1

    spoil()
    assert verdicts["accepted"] >= SEEDS // 50
    assert len(verdicts) > 1


def test_an_input_is_its_seeds_alone() -> None:
    """Whatever was made before, so that `--seed` makes a finding again."""
    valid = [{"a": None, "b": [None, None]}]
    before = [mutation.spoilt(valid, Random(seed)) for seed in range(300)]
    assert before == [mutation.spoilt(valid, Random(seed)) for seed in range(300)]


@EACH
@settings(max_examples=RAW, deadline=None, derandomize=True, database=None)
@given(content=st.binary(max_size=300))
def test_any_bytes(target: Target, content: bytes) -> None:
    fire(target, content)
