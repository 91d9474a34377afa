import pytest

from node.admission import rate_limits
from node.admission.rate_limits import Places, TokenBuckets


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def test_tokens_are_spent_and_come_back() -> None:
    clock = Clock()
    buckets = TokenBuckets(2, 5, clock)
    assert [buckets.try_take("a") for _ in range(11)] == [0.0] * 10 + [0.5]
    assert buckets.try_take("b", 10) == 0.0
    clock.now += 0.5
    assert buckets.try_take("a") == 0.0
    assert buckets.try_take("a") == 0.5
    clock.now += 1000
    assert [buckets.try_take("a") for _ in range(11)] == [0.0] * 10 + [0.5]


def test_a_rate_below_one_at_a_time_still_lets_one_through() -> None:
    clock = Clock()
    buckets = TokenBuckets(1 / 60, 10, clock)
    assert buckets.try_take("a") == 0.0
    assert buckets.try_take("a") == pytest.approx(60)
    clock.now += 60
    assert buckets.try_take("a") == pytest.approx(0.0)


def test_keys_that_are_refused_are_bounded_too() -> None:
    buckets = TokenBuckets(1, 1, Clock())
    for key in range(rate_limits.MAX_KEYS + 100):
        assert buckets.try_take(str(key), 5.0) > 0
    assert len(buckets._kept) == rate_limits.MAX_KEYS


def test_a_debt_is_paid_by_waiting() -> None:
    clock = Clock()
    buckets = TokenBuckets(10, 1, clock)
    assert buckets.take_with_debt("a", 10) == 0.0
    assert buckets.take_with_debt("a", 5) == pytest.approx(0.5)
    assert buckets.take_with_debt("a", 5) == pytest.approx(1.0)
    assert buckets.try_take("a") == pytest.approx(1.1)
    clock.now += 1.1
    assert buckets.try_take("a") == 0.0


def test_only_so_many_keys_are_remembered_and_the_spenders_longest() -> None:
    clock = Clock()
    buckets = TokenBuckets(1, 1, clock)
    buckets.try_take("spent")
    for number in range(2 * rate_limits.MAX_KEYS):
        buckets.try_take(str(number))
        assert buckets.try_take("spent")
    assert len(buckets._kept) <= rate_limits.MAX_KEYS


def test_places_are_bounded_for_each_and_in_all() -> None:
    places = Places(2, 3)
    with places.one("a") as first, places.one("a") as second, places.one("a") as third:
        assert (first, second, third) == (True, True, False)
        with places.one("b") as fourth, places.one("c") as fifth:
            assert (fourth, fifth) == (True, False)
    with places.one("a") as again, places.one("b") as too, places.one("c") as last:
        assert again
        assert too
        assert last
    assert places._held == {}
