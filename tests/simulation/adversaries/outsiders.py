"""Adversaries that need no place in the roster: forgers, replayers, flooders, false feeds."""

import json
from base64 import urlsafe_b64encode
from typing import Any

from protocol.consensus.committee import committees
from protocol.wire import messages
from protocol.wire.encoding import Document, canonical
from protocol.wire.messages import Task
from protocol.wire.signing import sign
from tests.simulation.adversaries.adversary import Adversary, Environment, FeedPage
from tests.support import fixtures

FOREIGN = "0123456789abcdef" * 4  # another network's id
FEED = "e" * 32  # a feed's id
# What a lying feed does with the envelopes that it listed: it neither gives them nor calls them
# gone, calls all of them gone, gives others, gives one at a time, or does not answer.
LIES = ("withheld", "gone", "swapped", "first only", "stalled")


class Forger(Adversary):
    """Votes without being a member, and forges votes in the name of a member."""

    def on_round(self, task: str, attempt: int) -> None:
        here = (task, attempt)
        self.commit_to(here, self.outcome(task, "wrong"), self.salt(here))
        self.reveal(here, self.outcome(task, "wrong"), self.salt(here))
        attempts = committees(self.environment.network, self.tasks[task])
        member = attempts[min(attempt, len(attempts) - 1)][0]
        bound = self.bound(here, self.outcome(task, "wrong"), self.salt(here))
        body = messages.commit_body(self.environment.network.id, *here, bound)
        document = {**sign(body, fixtures.key(self.index)).document(), "signer": member}
        self.environment.gossip(self.peer, self.environment.topics[1], canonical(document))


class Garbler(Adversary):
    """Sends malformed messages: undecodable, too large, too deep, on the wrong topic."""

    def on_payload(self, topic: str, payload: bytes) -> None:
        tasks, votes = self.environment.topics
        malformed = self.rng.choice(
            (
                self.rng.randbytes(200),
                b"{" * 100_000,
                b'{"body":' * 17 + b"1" + b"}" * 17,
                payload[:-10],
                payload.replace(b'"type":', b'"type":"commit","type":', 1),
                payload + b" " * 66_000,
                b"\xff\xfe" + payload,
                payload.replace(b'"attempt":0', b'"attempt":1e400'),
            )
        )
        self.environment.gossip(self.peer, votes, malformed)
        if self.rng.random() < 0.2:
            self.environment.gossip(self.peer, tasks if topic == votes else votes, payload)


# Two replayers that receive each other's messages would otherwise never stop.
REPLAYS = 2_000


class Replayer(Adversary):
    """Replays signed messages: later, or with another attempt, task or network.

    As a roster member, it also signs outcomes and salts of other members.
    """

    def __init__(self, environment: Environment, index: int) -> None:
        super().__init__(environment, index)
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
            changes += [
                {"task": other_task} for other_task in self.tasks if other_task != body["task"]
            ]
        change = self.rng.choice(changes)
        altered = {**document, "body": {**body, **change}}
        after = self.rng.uniform(0.0, 30.0)
        self.environment.call_later(
            after, self.environment.gossip, self.peer, topic, canonical(altered)
        )
        self.environment.call_later(
            130.0, self.environment.gossip, self.peer, topic, payload
        )  # after the seen cache forgot it
        if body["type"] != "task" and self.rng.random() < 0.3:
            self.environment.call_later(after, self.send, {**body, **change})


class LyingFeed(Adversary):
    """Answers feed requests with gaps, loops, steps back, foreign or malformed messages.

    Or it lists honest envelopes, and lies when it is asked for them: see `LIES`.
    """

    def __init__(self, environment: Environment, index: int) -> None:
        super().__init__(environment, index)
        self.payloads: list[bytes] = []
        self.lie = self.rng.choice(("gaps", "loop", "back", "still", "foreign", "noise", *LIES))

    def on_payload(self, topic: str, payload: bytes) -> None:
        self.payloads.append(payload)

    def page(self, feed: str, cursor: int) -> FeedPage:
        page = tuple(self.rng.sample(self.payloads, min(len(self.payloads), 8)))
        match self.lie:
            case "gaps":
                return FeedPage("f" * 32, cursor + 1000, page)
            case "loop":
                return FeedPage(self.rng.randbytes(16).hex(), 1, page)
            case "back":
                return FeedPage("f" * 32, max(0, cursor - 1), page)
            case "still":
                return FeedPage("f" * 32, cursor, page)
            case "foreign":
                body = messages.commit_body(FOREIGN, "a" * 64, 0, "b" * 64)
                return FeedPage(
                    "f" * 32, cursor + 1, (sign(body, fixtures.key(self.index)).encode(),)
                )
            case "noise":
                return FeedPage("f" * 32, cursor + 1, (self.rng.randbytes(64),))
            case _:
                return FeedPage("f" * 32, cursor + 1, page)

    def listed(self, requested: list[bytes]) -> tuple[list[bytes], bool]:
        """Return the envelopes to answer with, and whether all others are called gone."""
        match self.lie:
            case "withheld":
                return [], False
            case "gone":
                return [], True
            case "swapped":
                return self.rng.sample(self.payloads, min(len(self.payloads), len(requested))), True
            case "first only":
                return requested[:1], False
            case _:
                return requested, True


class Requester(Adversary):
    """Submits tasks by gossip."""

    def ask(self, body: dict[str, Any], index: int | None = None) -> None:
        payload = sign(body, fixtures.key(self.index if index is None else index)).encode()
        self.environment.gossip(self.peer, self.environment.topics[0], payload)

    def body(
        self, nonce: int, age: float = 0.0, deadline: int = 120, **changes: Any
    ) -> dict[str, Any]:
        net, created = self.environment.network.id, int((self.environment.now() - age) * 1000)
        args = fixtures.args(seed=nonce % 1000, **changes)
        kind = "text-to-music"
        return dict(
            messages.task_body(
                net, kind, args, fixtures.CLASS, created, deadline, f"{nonce:032x}", self.peer
            )
        )


class BadRequester(Requester):
    """Submits expired, early, unknown, oversized and conflicting tasks.

    Its feed serves such tasks too: a feed carries messages that gossip would not forward.
    """

    def __init__(self, environment: Environment, index: int) -> None:
        super().__init__(environment, index)
        self.feed: list[bytes] = []

    def begin(self) -> None:
        self.environment.call_later(self.rng.uniform(0.5, 8.0), self._submit)

    def _submit(self) -> None:
        body = self.body(self.rng.randrange(1 << 60))
        self.ask(body)
        self.ask(body, self.index + 50)  # the same id, another signer
        self.ask({**body, "args": fixtures.args(seed=77)})  # the same nonce, another task
        self.ask(self.body(7, deadline=self.rng.randint(2, 30)))  # almost no time to execute
        ahead = self.rng.uniform(61.0, 119.0)
        ages = (1000.0, self.rng.uniform(121.0, 180.0), -ahead, -1000.0)
        untimely = [self.body(10 + number, age) for number, age in enumerate(ages)]
        unfit = [
            self.body(3, deadline=7_200),
            self.body(4, model="nobody/knows"),
            {**self.body(5), "class": "abacus"},
            {**self.body(6), "network": FOREIGN},
        ]
        for body in (*untimely, *unfit):
            self.ask(body)
        self.rng.shuffle(unfit)
        chosen = self.rng.choice((untimely, unfit))
        self.feed = [sign(body, _key(self)).encode() for body in chosen]

    def page(self, feed: str, cursor: int) -> FeedPage:
        start = cursor if feed == FEED else 0
        return FeedPage(FEED, len(self.feed), tuple(self.feed[start:]))


class NonceGrinder(Requester):
    """Tries nonces to get as many faulty members as possible into the committee.

    It uses the same nonce for a second task.
    """

    def begin(self) -> None:
        self.environment.call_later(self.rng.uniform(0.5, 8.0), self._submit)

    def _submit(self) -> None:
        faulty = self.environment.network.roster.keys() - self.environment.honest_peers
        tasks = [self._task(self.rng.randrange(1 << 60)) for _ in range(8)]
        first = [(committees(self.environment.network, t)[0], t) for t in tasks]
        best = max(first, key=lambda pair: len(faulty.intersection(pair[0])))[1]
        nonce = int(str(best.envelope.body["nonce"]), 16)
        for task in (best, self._task(nonce, "another song")):
            self.environment.gossip(self.peer, self.environment.topics[0], task.envelope.encode())

    def _task(self, nonce: int, prompt: str | None = None) -> Task:
        body = self.body(nonce, prompt=prompt or self.rng.choice(("song", "fail")))
        return fixtures.task_of(self.environment.network, sign(body, _key(self)).document())


class RequesterThief(Requester):
    """Gossips each task of others before it spreads: signed by itself, or as a task of its own.

    With the requester in the body, the first is invalid and the second another task. It tries to
    withdraw the tasks of others, too.
    """

    def on_task(self, task: Task) -> None:
        body = dict(task.envelope.body)
        if body["requester"] == self.peer:
            return
        self.ask(body)
        self.ask({**body, "requester": self.peer})
        self.send(messages.withdraw_body(self.environment.network.id, task.id))


class Withdrawer(Requester):
    """Submits tasks, and withdraws each at some time, twice."""

    def begin(self) -> None:
        for number in range(3):
            self.environment.call_later(self.rng.uniform(0.5, 8.0), self._submit, number)

    def _submit(self, number: int) -> None:
        body = self.body(self.rng.randrange(1 << 60))
        withdrawal = messages.withdraw_body(self.environment.network.id, messages.task_id(body))
        self.ask(body)
        for _ in range(2):
            self.environment.call_later(self.rng.uniform(0.0, 10.0), self.send, withdrawal)


class Flooder(Requester):
    """Submits more tasks than a node can execute, and votes on unknown tasks."""

    def begin(self) -> None:
        for number in range(8):
            self.environment.call_later(self.rng.uniform(0.5, 15.0), self._flood, number)

    def _flood(self, number: int) -> None:
        self.ask(self.body(number, deadline=90))
        for _ in range(4):
            task = self.rng.randbytes(32).hex()
            signature = urlsafe_b64encode(self.rng.randbytes(64)).rstrip(b"=").decode()
            body = messages.commit_body(self.environment.network.id, task, 0, "c" * 64)
            self.send(body)
            forged: Document = {"body": body, "signer": self.peer, "signature": signature}
            self.environment.gossip(self.peer, self.environment.topics[1], canonical(forged))


def _key(adversary: Adversary) -> Any:
    return fixtures.key(adversary.index)
