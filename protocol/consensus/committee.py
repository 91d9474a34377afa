"""Who votes on a task: a pure function of the network document and the task (specification 5)."""

import functools
import hashlib
from collections.abc import Iterator, Sequence

from protocol.network import Member, Network
from protocol.wire.encoding import domain
from protocol.wire.messages import Task

# Tasks whose committees are kept. Each is asked for at a task's start, outcome and certificate, and
# ranking a roster of 4,096 members takes 5 ms. They take a kilobyte each.
_CACHED_TASKS = 1_024


def committees(network: Network, task: Task) -> tuple[tuple[str, ...], ...]:
    """Return the committee of each attempt, from attempt 0; each is a prefix of the next.

    A committee lists peer ids in the order of their rank. There is at least one attempt, and no
    further one once the committee stops growing.
    """
    return _committees(network, task.compute_class, task.id)


@functools.lru_cache(maxsize=_CACHED_TASKS)
def _committees(network: Network, compute_class: str, task_id: str) -> tuple[tuple[str, ...], ...]:
    chosen = _one_per_operator(ranking(task_id, network.members(compute_class)))
    return tuple(tuple(chosen[:size]) for size in _sizes(network, len(chosen)))


def quorum(size: int) -> int:
    """Return how many equal votes a committee of `size` needs: a majority."""
    return size // 2 + 1


def ranking(task_id: str, members: Sequence[Member]) -> list[Member]:
    """Return the members by ascending `H("committee", task id ‖ peer id)`."""
    # The same beginning is hashed once: a roster may have thousands of members.
    beginning = hashlib.sha256(domain("committee") + bytes.fromhex(task_id))

    def rank(member: Member) -> bytes:
        hashed = beginning.copy()
        hashed.update(member.peer.encode("ascii"))
        return hashed.digest()

    return sorted(members, key=rank)


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
