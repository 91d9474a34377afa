"""Fair queueing in seconds of worker time."""

from collections.abc import Callable, Mapping

import pytest

from node.admission.lru_dict import MAX_KEYS
from node.execution.fair_queue import FairQueue, QueuedTask
from tests.support import fixtures

NET = fixtures.network()


class Bench:
    """A fair queue, its tasks by name, and the seconds that each takes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}  # by task id
        self.names: dict[str, str] = {}
        self.queue = FairQueue(lambda task: self.seconds[task.id])
        self.served: dict[str, float] = {}  # by the name's first word

    def add(self, name: str, seconds: float, source: str = "s", requester: int = 0) -> QueuedTask:
        task = fixtures.task(NET, nonce=len(self.names), requester=1000 + requester)
        self.seconds[task.id], self.names[task.id] = seconds, name
        queued = QueuedTask(task, 0.0, source)
        self.queue.add(queued)
        return queued

    def begin(self) -> str:
        """Begin the next task, and return its name."""
        queued = self.queue.begin(lambda _: True)
        assert queued is not None
        name = self.names[queued.task.id]
        kind = name.split()[0]
        self.served[kind] = self.served.get(kind, 0.0) + self.seconds[queued.task.id]
        self.running = queued.task.id
        return name

    def run(self) -> str:
        """Run the next task to its end, and return its name."""
        name = self.begin()
        self.queue.end(self.seconds[self.running])
        return name

    def waiting(self) -> set[str]:
        """Return the first words of the waiting tasks' names."""
        return {name.split()[0] for id_, name in self.names.items() if id_ in self.queue}


def test_a_cheap_task_passes_eight_heavy_ones_but_not_the_running_one() -> None:
    bench = Bench()
    for number in range(8):
        bench.add(f"heavy {number}", 35, "outsider", 1)
    bench.begin()
    bench.add("honest", 10, "client", 2)
    bench.queue.end(35)
    assert bench.run() == "honest"


def test_a_cheap_task_passes_heavy_ones_whether_they_come_from_one_key_or_from_many() -> None:
    ways: Mapping[str, Callable[[int], tuple[str, int]]] = {
        "many requesters": lambda n: ("outsider", 10 + n),
        "many sources": lambda n: (f"relay {n}", 1),
        "both": lambda n: (f"relay {n}", 10 + n),
    }
    for way, keys in ways.items():
        bench = Bench()
        for number in range(8):
            bench.add(f"heavy {number}", 35, *keys(number))
        bench.begin()
        bench.add("honest", 10, "client", 2)
        bench.queue.end(35)
        assert bench.run() == "honest", way


@pytest.mark.parametrize(
    ("long", "short"),
    [("one", "two"), ("relay", "relay")],
    ids=["sources", "requesters of one source"],
)
def test_keys_get_equal_seconds_not_equal_turns(long: str, short: str) -> None:
    bench = Bench()
    for number in range(100):
        bench.add(f"long {number}", 20, long, 1)
        bench.add(f"short {number}", 2, short, 2)
    for _ in range(60):
        bench.run()
    assert abs(bench.served["long"] - bench.served["short"]) <= 20


def test_a_requester_is_charged_whichever_sources_bring_its_tasks() -> None:
    bench = Bench()
    for number in range(40):
        bench.add(f"flood {number}", 10, f"relay {number % 4}", 1)
        bench.add(f"honest {number}", 10, "client", 2)
    for _ in range(20):
        bench.run()
    assert bench.served["honest"] >= bench.served["flood"]


def test_a_new_key_for_each_task_gains_nothing() -> None:
    for sources in (("relay", "relay"), ("fresh {}", "known")):
        bench = Bench()
        for number in range(60):
            # One task of each waits at a time, those of the flood under a key of their own.
            if "fresh" not in bench.waiting():
                bench.add(
                    f"fresh {number}", 10, sources[0].replace("{}", str(number)), 100 + number
                )
            if "known" not in bench.waiting():
                bench.add(f"known {number}", 10, sources[1], 1)
            bench.run()
        assert bench.served["known"] >= 290, sources


def test_a_requester_that_comes_back_does_not_wait_for_those_that_had_less() -> None:
    bench = Bench()
    for number in range(60):
        bench.add(f"flood {number}", 30, "relay", 1)
    waits = []
    for number in range(12):  # each after the result of the one before
        bench.begin()
        bench.add(f"honest {number}", 10, "relay", 2)
        bench.queue.end(30)
        waited = 0
        while not bench.run().startswith("honest"):
            waited += 1
        waits.append(waited)
    assert max(waits) <= 1
    assert sum(waits) <= 3


def test_cheap_tasks_of_ever_new_keys_do_not_starve_a_heavy_one() -> None:
    bench = Bench()
    bench.add("heavy", 50, "patient", 1)
    turns = 0
    bench.add("cheap", 5, "new", 2)
    bench.add("cheap", 5, "newer", 3)
    while bench.run() != "heavy" and turns < 100:
        turns += 1
        bench.add("cheap", 5, f"new {turns}", 10 + turns)
    # Three keys wait at a time: it comes when each of the others had as much.
    assert turns <= 3 * 50 / 5


def test_the_real_seconds_are_charged_after_a_wrong_estimate() -> None:
    bench = Bench()
    for number in range(3):
        bench.add(f"liar {number}", 1, "liar", 1)
        bench.add(f"honest {number}", 10, "client", 2)
    assert bench.begin() == "liar 0"
    bench.queue.end(100)
    assert [bench.run() for _ in range(3)] == ["honest 0", "honest 1", "honest 2"]


def test_the_newest_task_of_the_source_with_the_most_seconds_is_evicted() -> None:
    bench = Bench()
    for number in range(5):
        bench.add(f"cheap {number}", 1, "many", 1)
    heavy = [bench.add(f"heavy {number}", 40, "few", 2) for number in range(2)]
    assert bench.queue.evict() == heavy[1].task


def test_the_wait_of_a_new_task_leaves_out_what_it_passes() -> None:
    bench = Bench()
    for number in range(8):
        bench.add(f"heavy {number}", 35, "outsider", 1)
    honest = bench.add("honest", 10, "client", 2)
    bench.queue.remove(honest.task.id)
    assert bench.queue.wait_seconds(honest.task, "client") == 10
    assert bench.queue.wait_seconds(honest.task, "outsider") == 280


def test_remembered_keys_are_bounded() -> None:
    bench = Bench()
    bench.add("waits", 1)
    queued = bench.add("comes and goes", 1)
    for number in range(MAX_KEYS + 10):
        bench.queue.remove(queued.task.id)
        bench.queue.add(QueuedTask(queued.task, 0.0, str(number)))
    assert len(bench.queue._source_tags) == MAX_KEYS


def test_tasks_that_run_together_share_the_seconds_by_their_estimates() -> None:
    bench = Bench()
    bench.add("large 0", 30, "large", 1)
    bench.add("small 0", 10, "small", 2)
    assert [bench.begin(), bench.begin()] == ["small 0", "large 0"]
    for number in range(1, 4):
        bench.add(f"large {number}", 10, "large", 1)
        bench.add(f"small {number}", 10, "small", 2)
    bench.queue.end(20)  # 15 and 5
    assert [bench.run() for _ in range(3)] == ["small 1", "large 1", "small 2"]


def test_the_end_of_a_run_is_charged_once() -> None:
    bench = Bench()
    bench.add("first", 10, "one", 1)
    bench.add("second", 10, "two", 2)
    bench.begin()
    bench.begin()
    bench.queue.end(1000)
    bench.add("one", 10, "one", 1)
    bench.add("new", 11, "new", 3)
    bench.begin()
    bench.queue.end(10)
    assert bench.run() == "new"


def test_tasks_that_are_all_put_back_pay_for_their_time() -> None:
    bench = Bench()
    bench.add("honest", 10, "client", 1)
    flood = [bench.add("flood", 9, "outsider", 2) for _ in range(2)]
    assert [bench.begin(), bench.queue.begin(lambda one: one in flood)] == ["flood", flood[1]]
    for one in flood:
        bench.queue.put_back(one)
    bench.add("flood", 8, "outsider", 3)  # cheaper than what was put back, of a new requester
    bench.queue.end(9)
    assert bench.begin() == "honest"


def test_a_task_that_is_put_back_pays_nothing_beside_one_that_ends() -> None:
    bench = Bench()
    bench.add("first", 10, "one", 1)
    second = bench.add("second", 30, "two", 2)
    assert [bench.begin(), bench.begin()] == ["first", "second"]
    bench.queue.put_back(second)
    bench.queue.end(20)
    bench.add("third", 11, "one", 1)  # it would end at 31
    assert [bench.begin(), bench.begin()] == ["second", "third"]
