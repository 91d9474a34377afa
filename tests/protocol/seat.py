"""One node's agreement on a task: what it asks to send is signed and given back to it."""

from collections.abc import Sequence
from typing import Any, TypeVar

from protocol.consensus.agreement import Agreement
from protocol.consensus.effects import Effect, SignAndSend, State
from protocol.network import Network
from protocol.wire.encoding import Document
from protocol.wire.messages import Task, Vote
from tests.support import fixtures

_E = TypeVar("_E", bound=Effect)


class Seat:
    """As the coordinator does it: carry out `SignAndSend` before anything else happens."""

    def __init__(self, net: Network, task: Task, me: str, now: float = fixtures.START) -> None:
        self.net, self.task, self.me = net, task, me
        self.salts: list[int] = []
        self.sent: list[Vote] = []
        self.effects: list[Effect] = []
        self.agreement = Agreement(net, task, me, self._salt, now)
        self.did(self.agreement.start(now), now)

    def _salt(self, attempt: int) -> str:
        self.salts.append(attempt)
        return fixtures.salt(self.me, attempt)

    @property
    def state(self) -> State:
        return self.agreement.state

    @property
    def attempt(self) -> int:
        return self.agreement.attempt

    def did(self, effects: Sequence[Effect], now: float) -> list[Effect]:
        """Carry out effects at a time; returns them and what followed from them."""
        found: list[Effect] = []
        for effect in effects:
            found.append(effect)
            if isinstance(effect, SignAndSend):
                vote = fixtures.signed_by(self.net, effect.body, self.me)
                self.sent.append(vote)
                found += self.did(self.agreement.receive(vote, now), now)
        return found

    def hear(self, *votes: Vote, now: float) -> list[Effect]:
        """Receive votes of others, one after the other."""
        return [e for v in votes for e in self.did(self.agreement.receive(v, now), now)]

    def executed(self, now: float, found: Document | None = None) -> list[Effect]:
        """The execution ends with an outcome."""
        outcome: Any = fixtures.outcome() if found is None else found
        return self.did(self.agreement.executed(outcome, {"seconds": 1}, now), now)

    def advance(self, now: float) -> list[Effect]:
        """Let the time be `now`."""
        return self.did(self.agreement.advance(now), now)


def only(kind: type[_E], effects: Sequence[Effect]) -> _E:
    """The one effect of a kind."""
    (found,) = [e for e in effects if isinstance(e, kind)]
    return found


def names(effects: Sequence[Effect]) -> list[str]:
    return [type(e).__name__ for e in effects]
