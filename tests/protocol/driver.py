"""Drives the agreement of one node: signs what it asks to send and gives it back."""

from collections.abc import Sequence
from typing import Any, TypeVar

from protocol.consensus.agreement import Agreement
from protocol.consensus.effects import Effect, SignAndSend, State
from protocol.network import Network
from protocol.wire.encoding import Document
from protocol.wire.messages import Task, Vote
from tests.support import fixtures

_E = TypeVar("_E", bound=Effect)


class AgreementDriver:
    """Carries out each `SignAndSend` before anything else happens, as the coordinator does."""

    def __init__(
        self,
        net: Network,
        task: Task,
        me: str,
        now: float = fixtures.START,
        suspects: frozenset[str] = frozenset(),
        salt_of: str = "",
    ) -> None:
        """`salt_of` names the salts that it draws, by default those of `me` in the fixtures."""
        self.net, self.task, self.me = net, task, me
        self._salt_of = salt_of or me
        self.salts: list[int] = []
        self.sent: list[Vote] = []
        self.effects: list[Effect] = []
        self.agreement = Agreement(net, task, me, self._salt, now, suspects)
        self.carry_out(self.agreement.start(now), now)

    def _salt(self, attempt: int) -> str:
        self.salts.append(attempt)
        return fixtures.salt(self._salt_of, attempt)

    @property
    def state(self) -> State:
        return self.agreement.state

    @property
    def attempt(self) -> int:
        return self.agreement.attempt

    def carry_out(self, effects: Sequence[Effect], now: float) -> list[Effect]:
        """Carry out effects; return them and those that followed."""
        carried_out: list[Effect] = []
        for effect in effects:
            carried_out.append(effect)
            self.effects.append(effect)
            if isinstance(effect, SignAndSend):
                vote = fixtures.signed_by(self.net, effect.body, self.me)
                self.sent.append(vote)
                carried_out += self.carry_out(self.agreement.receive(vote, now), now)
        return carried_out

    def receive(self, *votes: Vote, now: float) -> list[Effect]:
        """Receive votes of other members in order."""
        return [e for v in votes for e in self.carry_out(self.agreement.receive(v, now), now)]

    def executed(self, now: float, outcome: Document | None = None) -> list[Effect]:
        """End the execution with an outcome, an honest one by default."""
        result: Any = fixtures.outcome() if outcome is None else outcome
        return self.carry_out(self.agreement.executed(result, {"seconds": 1}, now), now)

    def advance(self, now: float) -> list[Effect]:
        """Let the time be `now`."""
        return self.carry_out(self.agreement.advance(now), now)


def single(kind: type[_E], effects: Sequence[Effect]) -> _E:
    """Return the only effect of a type."""
    (effect,) = [e for e in effects if isinstance(e, kind)]
    return effect


def effect_names(effects: Sequence[Effect]) -> list[str]:
    return [type(e).__name__ for e in effects]
