"""`helium submit`: a task out, audio and a certificate back."""

from pathlib import Path

import click

from node.cli import options, task_arguments
from node.cli.exit_codes import usage
from node.cli.files import FILE
from node.cli.session import resolve_target, run_with_client
from node.cli.task_output import check_output, deliver, interruptible
from node.client.client import Client

EXAMPLES = """\b
Examples:
  helium submit task.json -o song.wav
  helium submit --model helium/embedded-music --prompt "rain" --seed 42 --seconds 5
  echo '{"model": "helium/embedded-music", "prompt": "rain", "seed": 1}' | helium submit -
"""


@click.command(epilog=EXAMPLES)
@click.argument("file", type=FILE, required=False)
@task_arguments.flags
@click.option("--deadline", type=int, metavar="SECONDS", help="When to give up. [default: 600]")
@click.option("--class", "compute_class", metavar="NAME", help="If the network has several.")
@click.option("--key", type=FILE, help="Sign with this key instead of a fresh one.")
@click.option("-o", "--output", type=FILE, default=Path("song.wav"), show_default=True)
@click.option("--no-wait", is_flag=True, help="Print the task's id and leave.")
@options.client
@options.as_json
def submit(
    file: Path | None,
    deadline: int | None,
    compute_class: str | None,
    key: Path | None,
    output: Path,
    no_wait: bool,
    network: Path | None,
    peers: tuple[str, ...],
    as_json: bool,
    **given: object,
) -> None:
    """Submit a task, wait, and write the audio and, beside it, its certificate.

    FILE holds the task's arguments as a JSON object ({"model": ..., "prompt": ..., "seed": 42,
    "generation_config": {...}}); `-` is standard input. Flags count before what the file says.
    """
    if file is None and all(value in (None, ()) for value in given.values()):
        raise usage("no task: name a FILE or give --model, --prompt and --seed (see --help)")
    if not no_wait:
        check_output(output)
    target = resolve_target(network, peers, key)
    asked = task_arguments.request(file, given)
    args = asked.within(target.network)

    async def action(client: Client) -> None:
        submission = await client.submit(
            asked.kind,
            args,
            audio=asked.audio,
            compute_class=compute_class,
            deadline=deadline,
        )
        if no_wait:
            options.say({"task": submission.id}, [submission.id], as_json)
            return
        options.note(f"task {submission.id}")
        with interruptible(submission.id):
            delivery = await deliver(client, submission, output)
        delivery.report(as_json)

    run_with_client(target, action)
