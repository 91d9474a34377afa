"""`helium cancel`: ask the members not to begin a task."""

from pathlib import Path

import click

from node.cli import options
from node.cli.commands.tasks import task_argument
from node.cli.exit_codes import usage
from node.cli.options import display_name
from node.cli.session import resolve_target, run_with_client
from node.client.arguments import InvalidArgument
from node.client.client import Client
from protocol.errors import Rejected

EPILOG = """\b
Example:
  helium key new requester.pem
  helium submit --key requester.pem --no-wait --model helium/embedded-music --prompt "rain" --seed 1
  helium cancel 1b69885465d833fc7e9b32d356a60a7453a84092fe4b5c75f02cd451c2b5764e \\
      --key requester.pem

\b
Output:
  withdrawn  the task, and the nodes that show its withdrawal
Exit code 0: two nodes show the withdrawal, or the only one that answers; one alone may not pass it
on. Exit code 2: the key is not the one that signed the task. Exit code 3: too few nodes show the
withdrawal; it may not have arrived. Exit code 4: no node knows the task.
"""

REQUEST = "a request: members that have begun to execute the task go on (see helium status)"
CERTIFIED = "the task has a certificate, which the withdrawal does not change (see helium fetch)"


@click.command(epilog=EPILOG)
@task_argument
@options.requester_key("The key that signed the task.")
@options.client
@options.as_json
def cancel(
    task: str, key: Path | None, network: Path | None, peers: tuple[str, ...], as_json: bool
) -> None:
    """Withdraw TASK: ask its members not to begin it.

    TASK is a task id, or its first 8 characters or more. Only its requester can withdraw it, with
    the key that submitted it: a task that was submitted without --key cannot be cancelled. Members
    that have not begun to execute it abstain, so that it ends early. It is a request, no guarantee.
    """
    if key is None:
        raise usage("--key: name the key that signed the task (helium submit --key)")

    async def action(client: Client) -> None:
        try:
            document, lines, note = await cancel_task(client, await client.find_task(task))
        except InvalidArgument:
            raise
        except Rejected as rejected:
            raise usage(f"--key {key}: {rejected.detail}") from None
        options.say(document, lines, as_json)
        options.note(note)

    run_with_client(resolve_target(network, peers, key), action)


async def cancel_task(client: Client, task: str) -> tuple[dict[str, object], list[str], str]:
    """Withdraw a task; return its withdrawal as the JSON document and as lines, and what it does.

    Raises as `Client.cancel` does.
    """
    nodes = sorted(await client.cancel(task))
    names = ", ".join(display_name(peer, client.network) for peer in nodes)
    document = {"task": task, "requester": client.requester, "withdrawn": True, "nodes": nodes}
    tracker = client.follow(task).tracker
    await tracker.refresh()
    note = REQUEST if tracker.settled is None else CERTIFIED
    count = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    return document, [f"withdrawn  task {task}: shown by {count}: {names}"], note
