"""Who votes on a task: a pure function of the network document and the task (specification 5)."""

from collections.abc import Iterator, Sequence

from protocol.network import Member, Network
from protocol.wire.encoding import tagged_hash
from protocol.wire.messages import Task


def committees(network: Network, task: Task) -> tuple[tuple[str, ...], ...]:
    """Return the committee of each attempt, from attempt 0; each is a prefix of the next.

    A committee lists peer ids in the order in which they were chosen. There is at least one
    attempt, and no further one once the committee stops growing.
    """
    chosen = _selection_order(ranking(task.id, network.members(task.compute_class)))
    return tuple(tuple(chosen[:size]) for size in _sizes(network, len(chosen)))


def quorum(size: int) -> int:
    """Return how many equal votes a committee of `size` needs: a majority."""
    return size // 2 + 1


def ranking(task_id: str, members: Sequence[Member]) -> list[Member]:
    """Return the members by ascending `H("committee", task id ‖ peer id)`."""
    prefix = bytes.fromhex(task_id)
    return sorted(members, key=lambda m: tagged_hash("committee", prefix + m.peer.encode("ascii")))


def _sizes(network: Network, members: int) -> Iterator[int]:
    """Yield `k` for each attempt, until it stops growing."""
    parameters = network.parameters
    previous, attempt = 0, 0
    while True:
        size = min(parameters.committee_size + 2 * attempt, parameters.committee_max, members)
        if size == previous:
            return
        yield size
        previous, attempt = size, attempt + 1


def _selection_order(ranked: Sequence[Member]) -> list[str]:
    """Return the peers: the first of each operator, then all others, each part in rank order.

    Peer ids are free, operators are not: a second peer of an operator gets a seat only when all
    operators have one.
    """
    seated_operators: set[str] = set()
    first_of_operator: list[str] = []
    further: list[str] = []
    for member in ranked:
        is_further = member.operator in seated_operators
        (further if is_further else first_of_operator).append(member.peer)
        seated_operators.add(member.operator)
    return first_of_operator + further
