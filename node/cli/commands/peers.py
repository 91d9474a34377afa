"""`helium peers`: who can be reached, whether they are ready, and how they have voted."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from node.cli import options
from node.cli.exit_codes import Exit, Failure, usage
from node.cli.options import display_name
from node.cli.session import ClientTarget, no_node_named, resolve_target, run_with_client
from node.client.client import Client, HelloAnswer
from node.storage.errors import UnusableDatabase
from node.storage.reader import DATABASE, read_ledger
from protocol.consensus.conduct import PeerRecord

EPILOG = """\b
Examples:
  helium peers --peer /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW...
  helium peers --data-dir ~/.local/share/helium --json

\b
Of the attempts at tasks that have ended, in whose committee the peer was:
  agreed       revealed the certified outcome
  dissented    revealed another one; broken hardware does that too
  unsettled    revealed an outcome, and none was certified
  abstained    said that it could not take part
  late         revealed the certified outcome, but committed too late to count
  silent       revealed nothing; a peer that is slower than the others looks the same
  equivocated  signed two messages that contradict each other: see helium evidence
"""


@click.command(epilog=EPILOG)
@options.client
@options.data_dir
@options.as_json
def peers(
    network: Path | None, peers: tuple[str, ...], data_dir: Path | None, as_json: bool
) -> None:
    """Show the nodes that can be reached; exit code 3 if none of them is ready.

    With a node's data folder, show also how every peer has voted, as that node saw it. That alone
    is shown where no node is named, with exit code 0, and where none answers.
    """
    target = resolve_target(network, peers, peers_required=False)
    standings = _standings(data_dir, target.network.id)
    if not (target.peers or standings or data_dir):
        raise no_node_named()
    reached, unreached = _greetings(target) if target.peers else ({}, None)
    known = sorted({*reached, *standings})
    document = {
        "network": target.network.id,
        "peers": [_entry(peer, reached.get(peer), standings.get(peer)) for peer in known],
    }
    lines = [
        f"{display_name(peer, target.network)}  {_line(peer, reached.get(peer))}"
        + _record(standings.get(peer))
        for peer in known
    ]
    if reached or standings or not target.peers:
        options.say(document, lines, as_json)
    if unreached is not None:
        raise unreached
    if not target.peers:
        options.note("no node is named, so none was asked: this is what the data folder holds")
    elif not any(greeting.ready for greeting in reached.values()):
        raise Failure(Exit.NO_NODE, "no node is ready")


def _greetings(target: ClientTarget) -> tuple[Mapping[str, HelloAnswer], Failure | None]:
    """Return who answered, by peer id, or why nobody did."""

    async def action(client: Client) -> Sequence[HelloAnswer]:
        return await client.query_nodes()

    try:
        return {greeting.peer: greeting for greeting in run_with_client(target, action)}, None
    except Failure as failure:
        if failure.exit_code != Exit.NO_NODE:
            raise
        return {}, failure


def _standings(data_dir: Path | None, network: str) -> Mapping[str, PeerRecord]:
    """Return what the node keeps; nothing where no data folder was named and there is none."""
    folder = options.settings({"data_dir": data_dir}).data_dir
    path = folder / DATABASE
    if data_dir is None and not path.exists():
        return {}
    try:
        with read_ledger(path, network) as ledger:
            return ledger.peer_records()
    except UnusableDatabase as error:
        if data_dir is None:  # the default folder may be another network's
            options.note(f"standings are not shown: {error}")
            return {}
        raise usage(f"{error} (--data-dir or HELIUM_DATA_DIR names the data folder)") from None


def _entry(
    peer: str, greeting: HelloAnswer | None, standing: PeerRecord | None
) -> dict[str, object]:
    entry: dict[str, object] = {"peer": peer, "reached": greeting is not None, "ready": False}
    if greeting is not None:
        entry |= asdict(greeting)
        entry["class"] = entry.pop("compute_class")
    return entry | {"standing": None if standing is None else standing.document()}


def _line(peer: str, greeting: HelloAnswer | None) -> str:
    if greeting is None:
        return f"{peer}  not reached"
    if not greeting.ready:
        return f"{peer}  not ready: {'; '.join(greeting.reasons)}"
    models = ", ".join(greeting.models) or "no models"
    return f"{peer}  ready, class {greeting.compute_class or 'none'}, {models}"


def _record(standing: PeerRecord | None) -> str:
    if standing is None:
        return ""
    counts = [f"{name} {count}" for name, count in standing.document().items() if count]
    return f"  ({', '.join(counts)})"
