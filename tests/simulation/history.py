"""One random history from a seed: weather, faults and adversaries; and what must hold of it."""

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from node.transport.memory import Link
from protocol import certificate, messages
from protocol.committee import committees, quorum
from protocol.effects import State
from protocol.evidence import verify as verify_evidence
from tests import cast
from tests.simulation.adversaries import AGENTS
from tests.simulation.world import Inhabitant, Weather, World, inhabited, manifest, waveform

BEHAVIOURS = ("wrong result", "silent", "late", *AGENTS)
LABELS = {"late": "honest@50"}  # seconds: more than an attempt takes
COPIERS = ("copycat", "commitment thief")
DEADLINE = 300


@dataclass
class Report:
    """How a history went."""

    ends: Counter[str] = field(default_factory=Counter)
    crashes: int = 0
    troubles: int = 0
    equivocations: int = 0
    trace: list[str] = field(default_factory=list)


async def play(seed: int, members: int, faulty: int) -> Report:
    """Live through one history and check every invariant; AssertionError names the one broken."""
    dice = random.Random(seed)
    net = cast.network(
        members,
        committee_size=dice.choice((1, 2, 3, 4)),
        attempt_seconds=40,
        commit_grace_seconds=2,
    )
    roles = ["honest"] * (members - faulty) + [dice.choice(BEHAVIOURS) for _ in range(faulty)]
    dice.shuffle(roles)
    labels = ["absent" if role in AGENTS else LABELS.get(role, role) for role in roles]
    async with inhabited(seed, net, _weather(dice), labels) as world:
        agents = [AGENTS[r](world, i) for i, r in enumerate(roles) if r in AGENTS]
        for agent in agents:
            await agent.start()
        report = await _live(world, dice, roles)
        for agent in agents:
            await agent.crash()
        return report


def _weather(dice: random.Random) -> Weather:
    link = Link(
        delay=(0.005, dice.choice((0.05, 0.2, 0.8))),
        loss=dice.choice((0.0, 0.1, 0.3)),
        duplication=0.1,
        reordering=0.2,
    )
    return Weather(link, execution=(1.0, 12.0), skew=dice.choice((0.0, 5.0)))


async def _live(world: World, dice: random.Random, roles: list[str]) -> Report:
    honest = [i for i in world.inhabitants if roles[i.index] == "honest"]
    report = Report()
    tasks = []
    async with world.client([i.index for i in honest]) as client:
        for number in range(dice.randint(1, 2)):
            made = await client.submit("text-to-music", cast.args(seed=number), deadline=DEADLINE)
            tasks.append(made.id)
            await _trouble(world, honest, dice, report)
    settled: dict[tuple[str, str], State] = {}
    for _ in range(DEADLINE // 20 + 2):
        _check_kept(honest, tasks, settled)
        await asyncio.sleep(20)
    for task in tasks:
        _check_task(world, honest, roles, task, report)
    report.trace = [f"{i.index} {text}" for i in honest for _, text in i.store.feed(0, 10_000)]
    _check_signatures(honest, roles, world.network.id, report)
    assert not world.medium.failures, world.medium.failures
    return report


async def _trouble(
    world: World, honest: list[Inhabitant], dice: random.Random, report: Report
) -> None:
    """Crashes and partitions at random moments, all healed in the end."""
    for _ in range(dice.randint(0, 4)):
        await asyncio.sleep(dice.uniform(0, 8))
        report.troubles += 1
        match dice.choice(("crash", "partition", "heal")):
            case "crash":
                victim = dice.choice(honest)
                await victim.crash()
                report.crashes += 1
                await asyncio.sleep(dice.uniform(0, 10))
                await victim.start()
            case "partition":
                members = [cast.peer(i) for i in range(len(world.network.roster))]
                dice.shuffle(members)
                world.medium.partition(members[: len(members) // 2])
            case _:
                world.medium.heal()
    world.medium.heal()


def _check_kept(
    honest: list[Inhabitant], tasks: list[str], settled: dict[tuple[str, str], State]
) -> None:
    """I4: what was certified once stays, through every crash."""
    for node in honest:
        for task in tasks:
            before, now = settled.get((node.peer, task)), node.state(task)
            if before is not None and before.certified:
                assert now is before, f"I4: {node.index} went from {before} to {now}"
            if now is not None:
                settled[node.peer, task] = now


def _check_task(
    world: World, honest: list[Inhabitant], roles: list[str], task: str, report: Report
) -> None:
    states = {node.state(task) for node in honest}
    assert None not in states, "gossip and feeds brought the task to everybody"
    assert all(state is not None and state.terminal for state in states), f"I6: {states}"
    report.ends.update(str(state) for state in states)
    certified = {s for s in states if s is not None and s.certified}
    assert len(states) == 1 or not certified, f"I1: one task, ends {states}"
    document = json.loads(honest[0].store.entries(task)[0].envelope)
    found = messages.task_id(document["body"])
    assert found == task
    right = {"result": manifest(waveform(document["body"]["args"]))}
    # What sections 1 and 6.3 promise while honest messages arrive within the grace period.
    punctual = not report.troubles and not world.weather.link.loss
    for node in honest:
        for text in node.certificates(task):
            valid = certificate.verify(text, world.network)  # I2
            committee = committees(world.network, valid.task)[valid.attempt]
            if not _fair(committee, roles):
                continue
            assert valid.outcome == right, "I3: an honest majority, another outcome"
            if punctual and valid.attempt == 0:
                copied = [p for p in valid.signers if roles[_index(p)] in COPIERS]
                assert not copied, "6.3: a copycat stands in a certificate"
        if punctual and node.certificates(task) == []:
            last = committees(world.network, cast.task_of(world.network, document))[-1]
            assert not _fair(last, roles), f"liveness: {states} with an honest majority"


def _fair(committee: tuple[str, ...], roles: list[str]) -> bool:
    """Whether the honest make a quorum."""
    return sum(roles[_index(p)] == "honest" for p in committee) >= quorum(len(committee))


def _check_signatures(
    honest: list[Inhabitant], roles: list[str], network: str, report: Report
) -> None:
    """I5: no honest node signs two bodies of one type, task and attempt, and nobody proves it."""
    bodies: dict[tuple[Any, ...], set[str]] = {}
    for node in honest:
        for _, text in node.store.feed(0, 10_000):
            envelope = json.loads(text)
            body = envelope["body"]
            slot = (envelope["signer"], body["type"], body.get("task"), body.get("attempt"))
            if body["type"] != "task" and roles[_index(envelope["signer"])] == "honest":
                bodies.setdefault(slot, set()).add(json.dumps(body, sort_keys=True))
        for document in node.store.evidence():
            proven = verify_evidence(document, network)
            assert roles[_index(proven.signer)] != "honest", "I5: evidence against the honest"
            report.equivocations += 1
    for slot, found in bodies.items():
        assert len(found) == 1, f"I5: {slot} signed {len(found)} times"


def _index(peer: str) -> int:
    return next(i for i in range(64) if cast.peer(i) == peer)
