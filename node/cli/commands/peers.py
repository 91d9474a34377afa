"""`helium peers`: the reachable nodes, their readiness, and how every peer has voted."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from node.cli import options
from node.cli.exit_codes import Exit, Failure
from node.cli.options import display_name
from node.cli.session import ClientTarget, no_node_named, resolve_target, run_with_client
from node.client.client import Client
from node.client.nodes import HelloAnswer, NoNodeReachable, describe_foreign
from node.storage.errors import UnusableDatabase
from node.storage.reader import DATABASE, read_ledger
from protocol.consensus.conduct import PeerRecord

EPILOG = """\b
Examples:
  helium peers --peer /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW...
  helium peers --data-dir ~/.local/share/helium --json

\b
Output, for each peer:
  ready        it executes tasks; its warm models follow, by compute class
  not ready    it answers but has no warm model, with its classes and reasons
  not reached  it is only in the data folder
  DUPLICATE    it has heard of another running node with the key of this command
In parentheses, how often it did what in attempts that had it in their committee:
  agreed       revealed the certified outcome
  dissented    revealed another outcome; broken hardware does that too
  unsettled    revealed an outcome, and none was certified
  diverged     the same, and this node's own outcome is another one
  abstained    signed that it cannot execute the task
  late         revealed the certified outcome, but committed too late to count
  silent       did not commit; a peer that is slower than the others looks the same
  withheld     committed and did not reveal, though it was due
  equivocated  signed two messages that contradict each other: see helium evidence
"""


@click.command(epilog=EPILOG)
@options.client
@options.data_dir
@options.as_json
def peers(
    network: Path | None, peers: tuple[str, ...], data_dir: Path | None, as_json: bool
) -> None:
    """Show the reachable nodes; exit code 3 if none of them is ready.

    With a node's data folder it also shows how every peer has voted, as that node saw it. Without
    --peer it shows only that, with exit code 0.
    """
    target = resolve_target(network, peers, peers_required=False)
    records = _read_records(data_dir, target.network.id)
    if not (target.peers or records or data_dir):
        raise no_node_named()
    answers, failure = _query(target) if target.peers else ({}, None)
    ids = sorted({*answers, *records})
    document = {
        "network": target.network.id,
        "peers": [_entry(peer, answers.get(peer), records.get(peer)) for peer in ids],
    }
    lines = [
        f"{display_name(peer, target.network)}  {_status_text(peer, answers.get(peer))}"
        + _record_text(records.get(peer))
        for peer in ids
    ]
    # Nothing is printed if no node was reached and nothing is stored: the failure says it all.
    if answers or records or not target.peers:
        options.say(document, lines, as_json)
    if failure is not None:
        raise failure
    if not target.peers:
        options.note("no node is named, so none was asked: this is what the data folder holds")
    elif not any(answer.ready for answer in answers.values()):
        raise Failure(Exit.NO_NODE, "no node is ready")


def _query(target: ClientTarget) -> tuple[Mapping[str, HelloAnswer], Failure | None]:
    """Return the nodes' answers by peer id, or the failure if no node can be reached."""

    async def action(client: Client) -> Sequence[HelloAnswer]:
        answers = await client.query_nodes()
        if client.foreign_nodes:
            text = describe_foreign(client.foreign_nodes, client.network.id)
            if not answers:
                raise NoNodeReachable(text)
            options.note(text)
        return answers

    try:
        return {answer.peer: answer for answer in run_with_client(target, action)}, None
    except Failure as failure:
        # The stored records are still worth showing; any other failure ends the command.
        if failure.exit_code != Exit.NO_NODE:
            raise
        return {}, failure


def _read_records(data_dir: Path | None, network: str) -> Mapping[str, PeerRecord]:
    """Return the voting records in a node's database; none if the default folder has none."""
    path = options.settings({"data_dir": data_dir}).data_dir / DATABASE
    if data_dir is None and not path.exists():
        return {}
    try:
        with read_ledger(path, network) as ledger:
            return ledger.peer_records()
    except UnusableDatabase as error:
        if data_dir is None:  # the default folder may belong to another network
            options.note(f"voting records are not shown: {error}")
            return {}
        raise options.unusable_data_dir(error) from None


def _entry(peer: str, answer: HelloAnswer | None, record: PeerRecord | None) -> dict[str, object]:
    entry: dict[str, object] = {"peer": peer, "reached": answer is not None, "ready": False}
    if answer is not None:
        entry |= asdict(answer)
    return entry | {"standing": None if record is None else record.document()}


def _status_text(peer: str, answer: HelloAnswer | None) -> str:
    if answer is None:
        return f"{peer}  not reached"
    if not answer.ready:
        return f"{peer}  not ready: {'; '.join(answer.reasons)}"
    served = [
        f"class {name}: {', '.join(models) or 'no warm model'}"
        for name, models in answer.models.items()
    ]
    return f"{peer}  ready, {'; '.join(served)}"


def _record_text(record: PeerRecord | None) -> str:
    if record is None:
        return ""
    counts = [f"{name} {count}" for name, count in record.document().items() if count]
    return f"  ({', '.join(counts)})"
