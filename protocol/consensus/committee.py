"""Who votes on a task: a pure function of the network document and the task (specification 5)."""

from collections.abc import Iterator, Sequence

from protocol.network import Member, Network
from protocol.wire.encoding import tagged_hash
from protocol.wire.messages import Task


def committees(network: Network, task: Task) -> tuple[tuple[str, ...], ...]:
    """Return the committee of each attempt, from attempt 0; each is a prefix of the next.

    A committee lists peer ids in the order of their rank. There is at least one attempt, and no
    further one once the committee stops growing.
    """
    ranked = ranking(task.id, network.members(task.compute_class))
    chosen = _one_per_operator(ranked)
    return tuple(tuple(chosen[:size]) for size in _sizes(network, len(chosen)))


def quorum(size: int) -> int:
    """Return how many equal votes a committee of `size` needs: a majority."""
    return size // 2 + 1


def ranking(task_id: str, members: Sequence[Member]) -> list[Member]:
    """Return the members by ascending `H("committee", task id ‖ peer id)`."""
    prefix = bytes.fromhex(task_id)
    return sorted(members, key=lambda m: tagged_hash("committee", prefix + m.peer.encode("ascii")))


def _sizes(network: Network, candidates: int) -> Iterator[int]:
    """Yield `k` for each attempt, until it stops growing."""
    parameters = network.parameters
    previous, attempt = 0, 0
    while True:
        size = min(parameters.committee_size + 2 * attempt, parameters.committee_max, candidates)
        if size == previous:
            return
        yield size
        previous, attempt = size, attempt + 1


def _one_per_operator(ranked: Sequence[Member]) -> list[str]:
    """Return the peers that may have a place: the first of each operator, in rank order.

    Peer ids are free, operators are not: an operator with many peers must not outvote the others.
    In a class with one operator all members may have a place.
    """
    first_of_operator: dict[str, str] = {}
    for member in ranked:
        first_of_operator.setdefault(member.operator, member.peer)
    if len(first_of_operator) == 1:
        return [member.peer for member in ranked]
    return list(first_of_operator.values())
