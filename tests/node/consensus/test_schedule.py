"""The schedule, against a walk over all of its keys."""

from hypothesis import given
from hypothesis import strategies as st

from node.consensus.schedule import Schedule

KEYS = st.sampled_from("abcdefgh")
CHANGES = st.one_of(
    st.tuples(st.just("set"), KEYS, st.integers(0, 9)),
    st.tuples(st.just("remove"), KEYS, st.just(0)),
    st.tuples(st.just("pop"), st.just(""), st.integers(0, 9)),
)


def in_order(plain: dict[str, tuple[float, int]], limit: float) -> list[str]:
    return [key for key, entry in sorted(plain.items(), key=lambda i: i[1]) if entry[0] <= limit]


@given(st.lists(CHANGES, max_size=400))
def test_keys_are_found_as_by_a_walk(changes: list[tuple[str, str, int]]) -> None:
    schedule = Schedule()
    plain: dict[str, tuple[float, int]] = {}  # the number of each key, and when it was set
    for step, (change, key, number) in enumerate(changes):
        match change:
            case "set":
                schedule.set(key, number)
                if key not in plain or plain[key][0] != number:
                    plain[key] = number, step
            case "remove":
                schedule.remove(key)
                plain.pop(key, None)
            case _:
                popped = in_order(plain, number)
                assert schedule.pop_until(number) == popped
                for gone in popped:
                    del plain[gone]
        assert (len(schedule), set(schedule)) == (len(plain), set(plain))
        assert schedule.first() == min((at for at, _ in plain.values()), default=None)
        for limit in (-1, 4, 9):
            assert schedule.until(limit) == in_order(plain, limit)


def test_replaced_entries_do_not_pile_up() -> None:
    schedule = Schedule()
    for number in range(1000):
        schedule.set("a", number)
        schedule.set("b", -number)
    assert len(schedule._heap) < 100
    for number in range(1000):  # the number of keys falls, and the heap with it
        schedule.set(str(number), number)
    for number in range(1000):
        schedule.remove(str(number))
        schedule.set("a", 2000 + number)
    assert len(schedule._heap) < 100
