from collections import Counter
from collections.abc import Container
from contextlib import ExitStack

import pytest

from node.admission import request_limits
from node.admission.request_limits import LimitedRequest, RequestLimiter
from node.admission.task_policy import TaskNotServed, TaskPolicy
from node.config.limits import Limits
from node.errors import Busy
from tests.support import fixtures

LIMITS = Limits(submissions_per_minute=60)
PER_KEY: dict[LimitedRequest, int] = {
    "watch": request_limits.PEER_WATCHES,
    "blob": request_limits.PEER_READS,
    "task": request_limits.PEER_READS,
    "submit": request_limits.PEER_UPLOADS,
    "feed": request_limits.PEER_FEEDS,
    "envelopes": request_limits.PEER_FEEDS,
}

each_request = pytest.mark.parametrize("request_name", PER_KEY)


@pytest.fixture
def one_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """One concurrent request of each kind, for all that are not roster members."""
    for name in ("MAX_WATCHES", "MAX_READS", "MAX_UPLOADS", "MAX_FEEDS"):
        monkeypatch.setattr(request_limits, name, 1)


def limiter(
    counts: Counter[str],
    submitters: frozenset[str] = frozenset(),
    members: Container[str] = (),
) -> RequestLimiter:
    return RequestLimiter(TaskPolicy(submitters, 0, float), LIMITS, members, float, counts)


def test_submissions_are_rate_limited_and_the_refusal_names_the_wait() -> None:
    counts: Counter[str] = Counter()
    limits = limiter(counts)
    for _ in range(10):
        limits.count_submission("a")
    with pytest.raises(Busy, match="try again in 1 s"):
        limits.count_submission("a")
    limits.count_submission("b")
    assert counts == {"submissions-refused": 1}


def test_a_task_that_the_policy_rejects_is_counted() -> None:
    counts: Counter[str] = Counter()
    with pytest.raises(TaskNotServed, match="does not serve"):
        limiter(counts, frozenset({fixtures.peer(1)})).check_task(fixtures.task(fixtures.network()))
    assert counts == {"tasks-unserved": 1}


@each_request
def test_slots_are_limited_per_key_and_released(request_name: LimitedRequest) -> None:
    counts: Counter[str] = Counter()
    limits = limiter(counts)
    with ExitStack() as held:
        for _ in range(PER_KEY[request_name] - 1):
            held.enter_context(limits.slot(request_name, "a"))
        with limits.slot(request_name, "a"):
            with pytest.raises(Busy, match="try again when one has ended"):
                held.enter_context(limits.slot(request_name, "a"))
            held.enter_context(limits.slot(request_name, "b"))
        held.enter_context(limits.slot(request_name, "a"))
    assert counts == {"requests-refused": 1}


@each_request
def test_slots_are_limited_in_total(request_name: LimitedRequest, one_slot: None) -> None:
    limits = limiter(Counter())
    with limits.slot(request_name, "a"), pytest.raises(Busy), limits.slot(request_name, "b"):
        pass
    with limits.slot(request_name, "b"):
        pass


@each_request
def test_strangers_that_hold_all_slots_keep_no_member_out(
    request_name: LimitedRequest, one_slot: None
) -> None:
    limits = limiter(Counter(), members=("member",))
    with ExitStack() as held:
        for key in ("stranger", "member", "member"):
            held.enter_context(limits.slot(request_name, key))
        with pytest.raises(Busy):
            held.enter_context(limits.slot(request_name, "another stranger"))
    with limits.slot(request_name, "member"), limits.slot(request_name, "stranger"):
        pass


@each_request
def test_a_member_has_the_same_limit_per_key(request_name: LimitedRequest) -> None:
    limits = limiter(Counter(), members=("member",))
    with ExitStack() as held:
        for _ in range(PER_KEY[request_name]):
            held.enter_context(limits.slot(request_name, "member"))
        with pytest.raises(Busy):
            held.enter_context(limits.slot(request_name, "member"))
    with limits.slot(request_name, "member"):
        pass


def test_task_requests_and_blob_requests_hold_separate_slots(one_slot: None) -> None:
    limits = limiter(Counter())
    with limits.slot("task", "a"), limits.slot("blob", "a"):
        pass


def test_members_behind_one_address_have_slot_keys_of_their_own() -> None:
    limits = limiter(Counter(), members=("m1", "m2"))
    address = "203.0.113.7"
    keys = [limits.slot_key(peer, address) for peer in ("m1", "m2", "stranger1", "stranger2")]
    assert keys == ["m1", "m2", address, address]
