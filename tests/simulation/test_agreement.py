"""Agreement in virtual time: which members agree, and what a requester gets."""

import asyncio
import hashlib

import pytest

from node.client.client import Client
from node.client.nodes import NoNodeReachable, TaskRejected
from node.client.submission import Submission
from node.sync.task_tracker import NoAgreement
from protocol.consensus.certificate import verify
from protocol.consensus.effects import State
from protocol.errors import Rejected, Rejection
from protocol.manifest import Blob
from protocol.network import Network
from protocol.wire.encoding import canonical
from tests.simulation import virtual_loop
from tests.simulation.doubles import COPIED, outcome, tokens, waveform
from tests.simulation.network import Conditions, SimulatedNetwork, run_network
from tests.support import fixtures


async def submit(world: SimulatedNetwork) -> Submission:
    async with world.client() as client:
        return await client.submit("text-to-music", fixtures.args())


def test_four_honest_nodes_agree_and_only_the_committee_executes() -> None:
    async def main() -> None:
        async with run_network(1, fixtures.network()) as world, world.client() as client:
            task = await client.submit("text-to-music", fixtures.args())
            result = await task.result()
            assert result.audio.shape == (64, 1)
            assert result.sampling_rate == 16_000
            verify(result.certificate.document, world.network)
            assert sum(i.executor.runs for i in world.nodes if i.executor) == 3
            await asyncio.sleep(10)
            assert {i.state(task.id) for i in world.nodes} == {State.AGREED}

    virtual_loop.run(main)


def helium() -> Network:
    """A network of four members whose tasks prove work."""
    document = fixtures.network_document(4, committee_size=4)
    document["classes"][fixtures.CLASS]["engine"] = "helium"
    document["models"][0]["replay"] = True
    return Network.of(document)


def test_work_and_tokens_are_certified_and_reach_the_requester() -> None:
    async def main() -> None:
        async with run_network(13, helium()) as world, world.client() as client:
            task = await client.submit("text-to-music", fixtures.args())
            result = await task.result()
            assert result.certificate.outcome == outcome(fixtures.args(), proves_work=True)
            assert "work" in result.certificate.outcome
            assert result.tokens == (tokens(fixtures.args()),)
            verify(result.certificate.document, world.network)
            # Every node serves them: one outside the committee gets them from a signer.
            name = hashlib.sha256(result.tokens[0]).hexdigest()
            await asyncio.sleep(10)
            for node in world.nodes:
                blob = Blob(name, len(result.tokens[0]), ())
                assert await client.fetch_blob(blob, [node.peer]) == result.tokens[0]

    virtual_loop.run(main)


def test_whoever_has_the_sound_and_not_the_work_is_outvoted() -> None:
    async def main() -> None:
        labels = [COPIED, "honest", "honest", "honest"]
        async with run_network(14, helium(), labels=labels) as world, world.client() as client:
            result = await (await client.submit("text-to-music", fixtures.args())).result()
            assert result.certificate.outcome == outcome(fixtures.args(), proves_work=True)
            assert fixtures.peer(0) not in result.certificate.signers

    virtual_loop.run(main)


def test_one_liar_is_outvoted_and_its_dissent_is_reported() -> None:
    async def main() -> None:
        net = fixtures.network(4, committee_size=4)
        labels = ["liar", "honest", "honest", "honest"]
        async with run_network(2, net, labels=labels) as world, world.client() as client:
            task = await client.submit("text-to-music", fixtures.args())
            result = await task.result()
            assert fixtures.peer(0) not in result.certificate.signers
            assert len(result.certificate.signers) == 3
            await asyncio.sleep(30)
            await task.tracker.refresh()
            digests = {b.peer: b.outcome for b in task.tracker.votes}
            honest = result.certificate.votes[0].digest
            assert {peer for peer, digest in digests.items() if digest != honest} == {
                fixtures.peer(0)
            }

    virtual_loop.run(main)


def test_two_different_liars_of_four_leave_no_certificate() -> None:
    async def main() -> None:
        net = fixtures.network(4, committee_size=4)
        labels = ["liar a", "liar b", "honest", "honest"]
        async with run_network(3, net, labels=labels) as world, world.client() as client:
            task = await client.submit("text-to-music", fixtures.args())
            with pytest.raises(NoAgreement) as ended:
                await task.result()
            assert ended.value.state is State.INCONCLUSIVE
            assert len(ended.value.votes) == 4
            assert {i.state(task.id) for i in world.nodes} == {State.INCONCLUSIVE}

    virtual_loop.run(main)


def test_silent_member_forces_an_attempt_with_a_larger_committee() -> None:
    """With a committee of two, one silent member forces the next attempt (specification 6.6)."""

    async def main() -> None:
        net = fixtures.network(4, committee_size=2, attempt_seconds=30)
        async with run_network(4, net) as world, world.client() as client:
            task = client.sign_task("text-to-music", fixtures.args())
            silent = world.nodes[0].coordinator
            assert silent is not None
            gone = silent.first_committee(task)[0]
            await client.submit_task(task)
            await asyncio.sleep(1)
            await next(i for i in world.nodes if i.peer == gone).crash()
            certificate = await client.follow(task.id).tracker.certificate()
            assert certificate.attempt == 1
            assert gone not in certificate.signers

    virtual_loop.run(main)


def test_abstention_starts_the_next_attempt_at_once() -> None:
    async def main() -> None:
        net = fixtures.network(4, committee_size=2, attempt_seconds=600)
        async with run_network(5, net) as world, world.client() as client:
            task = client.sign_task("text-to-music", fixtures.args())
            first = world.nodes[0].coordinator
            assert first is not None
            member = next(i for i in world.nodes if i.peer == first.first_committee(task)[0])
            assert member.executor is not None
            member.executor.abstain = "out-of-memory"
            await client.submit_task(task)
            began = asyncio.get_running_loop().time()
            certificate = await client.follow(task.id).tracker.certificate()
            assert certificate.attempt == 1
            assert asyncio.get_running_loop().time() - began < 60

    virtual_loop.run(main)


def test_hasty_liar_cannot_exclude_slower_honest_members_twice() -> None:
    """It closes the lists of attempt 0 early; in attempt 1 its commit starts no wait (6.8)."""

    async def main() -> None:
        net = fixtures.network(4, commit_grace_seconds=1, attempt_seconds=60)
        # Whichever three are chosen first, the liar and a quick one of them are done at once.
        labels = ["liar@0.3", "honest@0.3", "honest@4", "honest@4"]
        for seed in range(20, 26):
            async with (
                run_network(seed, net, labels=labels) as world,
                world.client() as client,
            ):
                result = await (await client.submit("text-to-music", fixtures.args())).result()
                assert result.audio.tobytes() == waveform(fixtures.args())
                assert fixtures.peer(0) not in result.certificate.signers

    virtual_loop.run(main)


def test_quick_liar_blocks_no_task_once_it_is_known() -> None:
    """Three members of one attempt: the liar commits at once, honest executions differ by seconds.

    Without the record of earlier tasks, nearly every task would end without a certificate.
    """

    async def main() -> None:
        net = fixtures.network(3, committee_max=3, commit_grace_seconds=2, attempt_seconds=60)
        conditions = Conditions(execution=(4.0, 12.0))
        labels = ["liar@0.3", "honest", "honest"]
        async with run_network(30, net, conditions, labels) as world, world.client() as client:
            ends = [await _end(client, seed) for seed in range(20)]
            assert ends.count(State.AGREED) >= 18
            assert set(ends[2:]) == {State.AGREED}

    virtual_loop.run(main)


async def _end(client: Client, seed: int) -> State:
    """Submit a task and return how it ends."""
    args = fixtures.args(seed=seed)
    submission = await client.submit("text-to-music", args, deadline=300)
    try:
        result = await submission.result()
    except NoAgreement as ended:
        return ended.state
    assert result.audio.tobytes() == waveform(args)
    return State.AGREED


def test_one_of_three_operators_cannot_certify_alone() -> None:
    """It has three peers, and all of them tell one lie at once."""

    async def main() -> None:
        document = fixtures.network_document(5, attempt_seconds=60)
        for member in document["roster"][:3]:
            member["operator"] = "operator-of-many"
        net = Network.parse(canonical(document))
        labels = ["liar@0.3", "liar@0.3", "liar@0.3", "honest", "honest"]
        async with run_network(31, net, labels=labels) as world, world.client() as client:
            ends = [await _end(client, seed) for seed in range(20)]
            assert ends.count(State.AGREED) >= 18
            for node in world.nodes:
                for task in node.journal.open_tasks():
                    raise AssertionError(f"{task} is open")

    virtual_loop.run(main)


def test_burst_ends_with_certificates() -> None:
    """Five times an execution per attempt: queues of honest nodes end no attempt (3.3)."""

    async def main() -> None:
        net = fixtures.network(6, attempt_seconds=300, max_deadline_seconds=3600)
        conditions = Conditions(execution=(40.0, 90.0))
        async with run_network(32, net, conditions) as world, world.client() as client:
            tasks = [
                await client.submit("text-to-music", fixtures.args(seed=seed), deadline=3600)
                for seed in range(20)
            ]
            certificates = await asyncio.gather(*(task.tracker.certificate() for task in tasks))
            assert len(certificates) == 20

    virtual_loop.run(main)


def test_withdrawn_task_is_not_begun() -> None:
    async def main() -> None:
        net = fixtures.network(3, committee_max=3, attempt_seconds=600)
        conditions = Conditions(execution=(50.0, 60.0))
        async with run_network(33, net, conditions) as world, world.client() as client:
            first = await client.submit("text-to-music", fixtures.args(seed=1))
            second = await client.submit("text-to-music", fixtures.args(seed=2))
            await asyncio.sleep(5)
            await client.cancel(second.id)
            with pytest.raises(NoAgreement) as ended:
                await second.result()
            assert ended.value.state is State.INCONCLUSIVE
            assert {vote.abstained for vote in ended.value.votes} == {"withdrawn"}
            await first.result()
            assert {i.executor.runs for i in world.nodes if i.executor} == {1}

    virtual_loop.run(main)


def test_crashed_member_catches_up_through_feeds() -> None:
    async def main() -> None:
        async with run_network(6, fixtures.network()) as world:
            task = await submit(world)
            await asyncio.sleep(0.5)
            crashed = next(i for i in world.nodes if i.state(task.id) is State.EXECUTING)
            await crashed.crash()
            await asyncio.sleep(60)
            assert not crashed.certificates(task.id)
            await crashed.start()
            await asyncio.sleep(20)
            assert crashed.state(task.id) is State.AGREED
            verify(crashed.certificates(task.id)[0], world.network)

    virtual_loop.run(main)


def test_crashes_of_all_nodes_lose_nothing() -> None:
    async def main() -> None:
        async with run_network(7, fixtures.network()) as world:
            task = await submit(world)
            for pause in (1.0, 3.5, 1.5, 2.5):
                await asyncio.sleep(pause)
                for node in world.nodes:
                    await node.crash()
                for node in world.nodes:
                    await node.start()
            await asyncio.sleep(60)
            assert {i.state(task.id) for i in world.nodes} == {State.AGREED}

    virtual_loop.run(main)


def test_task_without_results_expires() -> None:
    async def main() -> None:
        async with run_network(8, fixtures.network()) as world, world.client() as client:
            task = await client.submit("text-to-music", fixtures.args(), deadline=2)
            with pytest.raises(NoAgreement) as ended:
                await task.result()
            assert ended.value.state is State.EXPIRED
            await asyncio.sleep(5)
            assert {i.state(task.id) for i in world.nodes} == {State.EXPIRED}

    virtual_loop.run(main)


def test_node_outside_the_committee_serves_the_audio() -> None:
    async def main() -> None:
        async with run_network(9, fixtures.network()) as world:
            task = await submit(world)
            await asyncio.sleep(30)
            idle = next(i for i in world.nodes if i.executor and not i.executor.runs)
            async with world.client([idle.index]) as client:
                result = await client.follow(task.id).result()
            assert result.audio.tobytes() == waveform(fixtures.args())

    virtual_loop.run(main)


def test_client_rejects_an_unknown_model_before_submission() -> None:
    async def main() -> None:
        async with run_network(10, fixtures.network()) as world, world.client() as client:
            with pytest.raises(Rejected) as refused:
                await client.submit("text-to-music", fixtures.args(model="nobody/knows"))
            assert refused.value.reason is Rejection.UNKNOWN_MODEL
            assert not any(i.journal.feed(0, 10) for i in world.nodes)

    virtual_loop.run(main)


def test_nodes_refuse_a_task_created_in_the_future() -> None:
    async def main() -> None:
        async with run_network(11, fixtures.network()) as world, world.client() as client:
            ahead = fixtures.task(world.network, now=fixtures.START + 1000)
            with pytest.raises(TaskRejected) as refused:
                await client.submit_task(ahead)
            assert refused.value.reason == "created-ahead"

    virtual_loop.run(main)


def test_client_without_reachable_node_raises() -> None:
    async def main() -> None:
        async with run_network(12, fixtures.network()) as world:
            for node in world.nodes:
                await node.crash()
            with pytest.raises(NoNodeReachable):
                await submit(world)

    virtual_loop.run(main)
