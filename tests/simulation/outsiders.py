"""Peers that anybody can be: requesters, forgers, replayers, flooders, and feeds full of lies."""

import json
from base64 import urlsafe_b64encode
from typing import Any

from node.sync.feed_sync import Batch
from protocol.consensus.committee import committees
from protocol.wire import messages
from protocol.wire.encoding import Document, canonical
from protocol.wire.messages import Task
from protocol.wire.signing import sign
from tests.simulation.agents import Agent, Ground
from tests.support import fixtures

FOREIGN = "0123456789abcdef"  # another network's id
FEED = "e" * 32  # a feed's id


class Forger(Agent):
    """A stranger votes, and votes in the name of a member."""

    def on_round(self, task: str, attempt: int) -> None:
        here = (task, attempt)
        self.commit_to(here, self.outcome(task, "wrong"), self.salt(here))
        self.reveal(here, self.outcome(task, "wrong"), self.salt(here))
        attempts = committees(self.ground.network, self.tasks[task])
        member = attempts[min(attempt, len(attempts) - 1)][0]
        bound = self.bound(here, self.outcome(task, "wrong"), self.salt(here))
        body = messages.commit_body(self.ground.network.id, *here, bound)
        document = {**sign(body, fixtures.key(self.index)).document(), "signer": member}
        self.ground.say(self.peer, self.ground.topics[1], canonical(document))


class Garbler(Agent):
    """Sends what is no message: undecodable, too large, too deep, on the wrong topic."""

    def on_payload(self, topic: str, payload: bytes) -> None:
        tasks, votes = self.ground.topics
        garbled = self.dice.choice(
            (
                self.dice.randbytes(200),
                b"{" * 100_000,
                b'{"body":' * 17 + b"1" + b"}" * 17,
                payload[:-10],
                payload.replace(b'"type":', b'"type":"commit","type":', 1),
                payload + b" " * 66_000,
                b"\xff\xfe" + payload,
                payload.replace(b'"attempt":0', b'"attempt":1e400'),
            )
        )
        self.ground.say(self.peer, votes, garbled)
        if self.dice.random() < 0.2:
            self.ground.say(self.peer, tasks if topic == votes else votes, payload)


REPLAYS = 2_000  # payloads: two replayers that hear each other would go on for ever


class Replayer(Agent):
    """Sends what others signed again: later, under another attempt, task or network.

    As a roster member, it also takes others' outcomes and salts for its own.
    """

    def __init__(self, ground: Ground, index: int) -> None:
        super().__init__(ground, index)
        self.left = REPLAYS

    def on_payload(self, topic: str, payload: bytes) -> None:
        if not self.left:
            return
        self.left -= 1
        document = json.loads(payload)
        body: dict[str, Any] = document["body"]
        changes: list[dict[str, Any]] = [{"network": FOREIGN}]
        if "attempt" in body:
            changes += [{"attempt": body["attempt"] + 1}, {"attempt": 0}]
            changes += [{"task": other} for other in self.tasks if other != body["task"]]
        change = self.dice.choice(changes)
        altered = {**document, "body": {**body, **change}}
        after = self.dice.uniform(0.0, 30.0)
        self.ground.later(after, self.ground.say, self.peer, topic, canonical(altered))
        self.ground.later(130.0, self.ground.say, self.peer, topic, payload)  # no longer "seen"
        if body["type"] != "task" and self.dice.random() < 0.3:
            self.ground.later(after, self.send, {**body, **change})


class LyingFeed(Agent):
    """Answers feed requests with gaps, loops, steps back, another network's or no messages."""

    def __init__(self, ground: Ground, index: int) -> None:
        super().__init__(ground, index)
        self.heard: list[bytes] = []
        self.lie = self.dice.choice(("gaps", "loop", "back", "still", "foreign", "noise"))

    def on_payload(self, topic: str, payload: bytes) -> None:
        self.heard.append(payload)

    def page(self, feed: str, cursor: int) -> Batch:
        some = tuple(self.dice.sample(self.heard, min(len(self.heard), 8)))
        match self.lie:
            case "gaps":
                return Batch("f" * 32, cursor + 1000, some)
            case "loop":
                return Batch(self.dice.randbytes(16).hex(), 1, some)
            case "back":
                return Batch("f" * 32, max(0, cursor - 1), some)
            case "still":
                return Batch("f" * 32, cursor, some)
            case "foreign":
                body = messages.commit_body(FOREIGN, "a" * 64, 0, "b" * 64)
                return Batch("f" * 32, cursor + 1, (sign(body, fixtures.key(self.index)).encode(),))
            case _:
                return Batch("f" * 32, cursor + 1, (self.dice.randbytes(64),))


class Requester(Agent):
    """Submits tasks by gossip; subclasses say which."""

    def ask(self, body: dict[str, Any], index: int | None = None) -> None:
        payload = sign(body, fixtures.key(self.index if index is None else index)).encode()
        self.ground.say(self.peer, self.ground.topics[0], payload)

    def body(
        self, nonce: int, age: float = 0.0, deadline: int = 120, **changes: Any
    ) -> dict[str, Any]:
        net, created = self.ground.network.id, int((self.ground.now() - age) * 1000)
        args = fixtures.args(seed=nonce % 1000, **changes)
        kind = "text-to-music"
        return dict(
            messages.task_body(net, kind, args, fixtures.CLASS, created, deadline, f"{nonce:032x}")
        )


class BadRequester(Requester):
    """Submits what is expired, ahead of time, unknown or over a limit, and conflicting tasks.

    What is untimely or unfit may stand in its feed too, which carries what gossip would not.
    """

    def __init__(self, ground: Ground, index: int) -> None:
        super().__init__(ground, index)
        self.feed: list[bytes] = []

    def begin(self) -> None:
        self.ground.later(self.dice.uniform(0.5, 8.0), self._submit)

    def _submit(self) -> None:
        body = self.body(self.dice.randrange(1 << 60))
        self.ask(body)
        self.ask(body, self.index + 50)  # the same id, signed by another
        self.ask({**body, "args": fixtures.args(seed=77)})  # the same nonce, another task
        self.ask(self.body(7, deadline=self.dice.randint(2, 30)))  # hardly time to do it
        ahead = self.dice.uniform(61.0, 119.0)
        ages = (1000.0, self.dice.uniform(121.0, 180.0), -ahead, -1000.0)
        untimely = [self.body(10 + number, age) for number, age in enumerate(ages)]
        unfit = [
            self.body(3, deadline=7_200),
            self.body(4, model="nobody/knows"),
            {**self.body(5), "class": "abacus"},
            {**self.body(6), "network": FOREIGN},
        ]
        for body in (*untimely, *unfit):
            self.ask(body)
        self.dice.shuffle(unfit)
        chosen = self.dice.choice((untimely, unfit))
        self.feed = [sign(body, _key(self)).encode() for body in chosen]

    def page(self, feed: str, cursor: int) -> Batch:
        start = cursor if feed == FEED else 0
        return Batch(FEED, len(self.feed), tuple(self.feed[start:]))


class NonceGrinder(Requester):
    """Tries nonces until the committee has as many of its friends as can be: all the faulty.

    What it found for one task it tries on others.
    """

    def begin(self) -> None:
        self.ground.later(self.dice.uniform(0.5, 8.0), self._submit)

    def _submit(self) -> None:
        friends = self.ground.network.roster.keys() - self.ground.obedient
        tasks = [self._task(self.dice.randrange(1 << 60)) for _ in range(8)]
        first = [(committees(self.ground.network, t)[0], t) for t in tasks]
        best = max(first, key=lambda pair: len(friends.intersection(pair[0])))[1]
        nonce = int(str(best.envelope.body["nonce"]), 16)
        for task in (best, self._task(nonce, "another song")):
            self.ground.say(self.peer, self.ground.topics[0], task.envelope.encode())

    def _task(self, nonce: int, prompt: str | None = None) -> Task:
        body = self.body(nonce, prompt=prompt or self.dice.choice(("song", "fail")))
        return fixtures.task_of(self.ground.network, sign(body, _key(self)).document())


class Flooder(Requester):
    """Submits far more than anybody can execute, and votes on tasks that nobody knows."""

    def begin(self) -> None:
        for number in range(8):
            self.ground.later(self.dice.uniform(0.5, 15.0), self._flood, number)

    def _flood(self, number: int) -> None:
        self.ask(self.body(number, deadline=90))
        for _ in range(4):
            task = self.dice.randbytes(32).hex()
            signature = urlsafe_b64encode(self.dice.randbytes(64)).rstrip(b"=").decode()
            body = messages.commit_body(self.ground.network.id, task, 0, "c" * 64)
            self.send(body)
            forged: Document = {"body": body, "signer": self.peer, "signature": signature}
            self.ground.say(self.peer, self.ground.topics[1], canonical(forged))


def _key(agent: Agent) -> Any:
    return fixtures.key(agent.index)
