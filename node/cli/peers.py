"""`helium peers`: who can be reached, and whether they are ready."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from node.cli import options
from node.cli.exits import Exit, Failure
from node.cli.summary import name_of
from node.cli.talking import place, talk
from node.client import Client, Greeting


@click.command()
@options.client
@options.as_json
def peers(network: Path | None, peers: tuple[str, ...], as_json: bool) -> None:
    """Show the nodes that can be reached; exit code 3 if none of them is ready."""

    async def conversation(client: Client) -> Sequence[Greeting]:
        found = await client.greetings()
        document = {"network": client.network.id, "peers": [_entry(g) for g in found]}
        lines = [f"{name_of(g.peer, client.network)}  {_line(g)}" for g in found]
        options.say(document, lines, as_json)
        return found

    if not any(greeting.ready for greeting in talk(place(network, peers), conversation)):
        raise Failure(Exit.NO_NODE, "no node is ready")


def _entry(greeting: Greeting) -> dict[str, object]:
    entry = asdict(greeting)
    entry["class"] = entry.pop("compute_class")
    return entry


def _line(greeting: Greeting) -> str:
    if not greeting.ready:
        return f"{greeting.peer}  not ready: {'; '.join(greeting.reasons)}"
    models = ", ".join(greeting.models) or "no models"
    return f"{greeting.peer}  ready, class {greeting.compute_class or 'none'}, {models}"
