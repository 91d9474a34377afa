"""Rebuild a task's agreement from the journal: at a restart, and for a late vote."""

from node.storage.journal import Journal
from protocol.consensus.agreement import Agreement, DrawSalt
from protocol.consensus.effects import SignAndSend
from protocol.network import Network
from protocol.wire import codec
from protocol.wire.messages import Message, Task, Withdraw


def replay(
    network: Network, me: str, journal: Journal, task: str, salts: DrawSalt
) -> tuple[Agreement, list[SignAndSend]]:
    """Rebuild the agreement of an accepted task, by its votes in their order and at their times.

    Also returns the bodies that the agreement asked to send and that were never signed. Those that
    `is_due` are still to be signed.
    """
    entries = journal.entries(task)
    accepted = codec.decode(entries[0].envelope.encode(), network.id)
    assert isinstance(accepted, Task)  # noqa: S101  # a task's own envelope is accepted first
    agreement = Agreement(network, accepted, me, salts, entries[0].at, journal.suspects(task))
    outcome = journal.outcome(task)
    effects = agreement.start(entries[0].at)
    signed = set()
    for entry in entries[1:]:
        # The agreement may act differently on a vote before its own outcome and after it.
        if outcome is not None and outcome.after < entry.seq:
            effects += agreement.executed(outcome.outcome, outcome.trace, outcome.at)
            outcome = None
        vote = codec.decode(entry.envelope.encode(), network.id)
        assert not isinstance(vote, Task)  # noqa: S101  # one task envelope for each task
        if isinstance(vote, Withdraw):
            effects += agreement.withdraw(entry.at)
            continue
        # The journal holds only votes that were kept, conflicting ones too.
        status = agreement.judge(vote, keep_conflicting=True)
        effects += agreement.receive(vote, entry.at, status)
        if vote.signer == me:
            signed.add((vote.envelope.body["type"], vote.attempt))
    if outcome is not None:
        effects += agreement.executed(outcome.outcome, outcome.trace, outcome.at)
    # The rest was signed and journalled. Signed again, a body could differ from the first one,
    # and this node would equivocate.
    return agreement, [
        effect
        for effect in effects
        if isinstance(effect, SignAndSend)
        and (effect.body["type"], effect.body["attempt"]) not in signed
    ]


def is_due(agreement: Agreement, effect: SignAndSend) -> bool:
    """Whether a body is still to be signed, after the agreement has advanced to the present.

    A commit or an abstention is due only in the current attempt of a task that has not ended. None
    is due that own votes contradict which came back while this node held it (specification 6.12).
    """
    if not agreement.may_sign(effect.body):
        return False
    if effect.body["type"] == "reveal":
        return True
    return not agreement.state.terminal and effect.body["attempt"] == agreement.attempt


def signed_messages(network: Network, me: str, journal: Journal, task: str) -> list[Message]:
    """Return an accepted task and what this node has signed for it, to be published again."""
    return [
        codec.decode(entry.envelope.encode(), network.id)
        for entry in journal.entries(task)
        if entry.signer == me or entry.type == "task"
    ]
