"""Who votes on a task: a pure function of the network document and the task (specification 5)."""

from collections.abc import Iterator, Sequence

from protocol.network import Member, Network
from protocol.wire.encoding import tagged_hash
from protocol.wire.messages import Task


def committees(network: Network, task: Task) -> tuple[tuple[str, ...], ...]:
    """Return the committee of each attempt, first attempt first; each is a prefix of the next.

    The peers stand in the order in which they were chosen. There is at least one attempt; there is
    no further one once the committee stops growing.
    """
    chosen = _in_order_of_choice(ranking(task.id, network.members(task.compute_class)))
    return tuple(tuple(chosen[:size]) for size in _sizes(network, len(chosen)))


def quorum(size: int) -> int:
    """Return how many equal votes a committee of `size` needs."""
    return size // 2 + 1


def ranking(task_id: str, members: Sequence[Member]) -> list[Member]:
    """Return the members by ascending `H("committee", task id ‖ peer id)`."""
    task = bytes.fromhex(task_id)
    return sorted(members, key=lambda m: tagged_hash("committee", task + m.peer.encode("ascii")))


def _sizes(network: Network, members: int) -> Iterator[int]:
    last, attempt = 0, 0
    while True:
        grown = network.parameters.committee_size + 2 * attempt
        size = min(grown, network.parameters.committee_max, members)
        if size == last:
            return
        yield size
        last, attempt = size, attempt + 1


def _in_order_of_choice(ranked: Sequence[Member]) -> list[str]:
    """One peer per operator first, then the others, each part in rank order."""
    operators: set[str] = set()
    first: list[str] = []
    others: list[str] = []
    for member in ranked:
        (others if member.operator in operators else first).append(member.peer)
        operators.add(member.operator)
    return first + others
