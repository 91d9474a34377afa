import pytest

from node.admission.lru_dict import MAX_KEYS
from node.admission.rate_limits import ConcurrencyLimit, TokenBuckets
from tests.node.admission.clock import Clock

# Token buckets


def test_tokens_are_taken_and_refilled() -> None:
    clock = Clock()
    buckets = TokenBuckets(2, 5, clock)
    assert [buckets.try_take("a") for _ in range(11)] == [0.0] * 10 + [0.5]
    assert buckets.try_take("b", 10) == 0.0
    clock.now += 0.5
    assert buckets.try_take("a") == 0.0
    assert buckets.try_take("a") == 0.5
    clock.now += 1000
    assert [buckets.try_take("a") for _ in range(11)] == [0.0] * 10 + [0.5]


def test_a_bucket_holds_at_least_one_token() -> None:
    clock = Clock()
    buckets = TokenBuckets(1 / 60, 10, clock)
    assert buckets.try_take("a") == 0.0
    assert buckets.try_take("a") == pytest.approx(60)
    clock.now += 60
    assert buckets.try_take("a") == pytest.approx(0.0)


def test_refused_keys_are_bounded() -> None:
    buckets = TokenBuckets(1, 1, Clock())
    for key in range(MAX_KEYS + 100):
        assert buckets.try_take(str(key), 5.0) > 0
    assert len(buckets._levels) == MAX_KEYS


def test_debt_is_paid_by_waiting() -> None:
    clock = Clock()
    buckets = TokenBuckets(10, 1, clock)
    assert buckets.take_with_debt("a", 10) == 0.0
    assert buckets.take_with_debt("a", 5) == pytest.approx(0.5)
    assert buckets.take_with_debt("a", 5) == pytest.approx(1.0)
    assert buckets.try_take("a") == pytest.approx(1.1)
    clock.now += 1.1
    assert buckets.try_take("a") == 0.0


def test_a_key_that_keeps_asking_is_not_evicted() -> None:
    buckets = TokenBuckets(1, 1, Clock())
    buckets.try_take("spent")
    for number in range(2 * MAX_KEYS):
        buckets.try_take(str(number))
        assert buckets.try_take("spent")
    assert len(buckets._levels) <= MAX_KEYS


# Concurrency limits


def test_slots_are_limited_per_key_and_in_total() -> None:
    limit = ConcurrencyLimit(2, 3)
    with limit.slot("a") as first, limit.slot("a") as second, limit.slot("a") as third:
        assert (first, second, third) == (True, True, False)
        with limit.slot("b") as fourth, limit.slot("c") as fifth:
            assert (fourth, fifth) == (True, False)
    with limit.slot("a") as first, limit.slot("b") as second, limit.slot("c") as third:
        assert (first, second, third) == (True, True, True)
    assert limit._held == {}


def test_slots_have_no_total_by_default() -> None:
    limit = ConcurrencyLimit(1)
    with limit.slot("a") as first, limit.slot("b") as second, limit.slot("b") as third:
        assert (first, second, third) == (True, True, False)


def test_an_exception_releases_the_slot() -> None:
    limit = ConcurrencyLimit(1, 1)
    with pytest.raises(LookupError), limit.slot("a"):
        raise LookupError
    with limit.slot("b") as held:
        assert held
    assert limit._held == {}
