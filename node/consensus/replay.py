"""A task's machine, rebuilt from its journal: at a restart, and for a late vote."""

import json

from node.storage.journal import Journal, JournalEntry
from protocol.consensus.agreement import Agreement, DrawSalt
from protocol.consensus.effects import Effect, SignAndSend
from protocol.network import Network
from protocol.wire import codec
from protocol.wire.messages import Message, Task


def replay(
    network: Network, me: str, journal: Journal, task: str, salts: DrawSalt
) -> tuple[Agreement, list[Effect]]:
    """Rebuild the machine of the accepted `task`, in the order and at the times of then.

    Also returned: the bodies that it would have sent meanwhile and that were never signed.
    """
    entries = journal.entries(task)
    accepted = codec.decode(entries[0].envelope.encode(), network.id)
    assert isinstance(accepted, Task)  # noqa: S101  # a task's own envelope is accepted first
    agreement = Agreement(network, accepted, me, salts, entries[0].at)
    produced = journal.outcome(task)
    effects = agreement.start(entries[0].at)
    for entry in entries[1:]:
        if produced is not None and produced.after < entry.seq:
            effects += agreement.executed(produced.outcome, produced.trace, produced.at)
            produced = None
        vote = codec.decode(entry.envelope.encode(), network.id)
        assert not isinstance(vote, Task)  # noqa: S101  # one task envelope for each task
        # The journal holds only votes that were kept, whatever their number.
        status = agreement.judge(vote, keep_conflicting=True)
        effects += agreement.receive(vote, entry.at, status)
    if produced is not None:
        effects += agreement.executed(produced.outcome, produced.trace, produced.at)
    signed = {(e.type, _attempt(e)) for e in entries if e.signer == me}
    return agreement, [
        e
        for e in effects
        if isinstance(e, SignAndSend) and (e.body["type"], e.body["attempt"]) not in signed
    ]


def signed_messages(network: Network, me: str, journal: Journal, task: str) -> list[Message]:
    """Return an accepted task and what this node has signed for it, to be sent again."""
    return [
        codec.decode(entry.envelope.encode(), network.id)
        for entry in journal.entries(task)
        if entry.signer == me or entry.type == "task"
    ]


def _attempt(entry: JournalEntry) -> object:
    return json.loads(entry.envelope)["body"].get("attempt")
