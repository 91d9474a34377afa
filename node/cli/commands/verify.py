"""`helium verify`: offline, from nothing but the documents."""

from pathlib import Path

import click

from node.cli import options
from node.cli.exit_codes import Exit, Failure
from node.cli.files import FILE, check_readable, read
from protocol.consensus.certificate import Certificate, verify_bytes
from protocol.consensus.committee import committees, quorum
from protocol.constants import DOCUMENT_LIMIT
from protocol.errors import Rejected
from protocol.network import Network


@click.command()
@click.argument("certificate", type=FILE)
@options.network
@click.option("--audio", type=FILE, metavar="FILE", help="A WAV file that it should vouch for.")
@options.as_json
def verify(certificate: Path, network: Path | None, audio: Path | None, as_json: bool) -> None:
    """Verify CERTIFICATE against the network document, offline; `-` is standard input.

    Checked are the task, the committee, every signature, the quorum, that the votes are equal, that
    every signer had committed before any revealed, and with --audio that the file's samples are the
    very ones. Exit code 6, with the reason, if anything is wrong.
    """
    if audio is not None:
        check_readable(audio)
    own = options.chosen_network(options.settings({"network": network}).network)
    try:
        found = verify_bytes(read(certificate, DOCUMENT_LIMIT), own)
    except Rejected as error:
        raise Failure(Exit.UNVERIFIED, f"{certificate}: {error}") from None
    document, lines = _described(found, own)
    if audio is not None:
        output = _check_audio(audio, found)
        document["audio"] = {"path": str(audio), "output": output}
        lines.append(f"audio      {audio} is output {output} of it, sample for sample")
    options.say(document, lines, as_json)


def _check_audio(path: Path, certificate: Certificate) -> int:
    from node.client.result import AudioMismatch, check_file  # numpy takes longer than all the rest

    try:
        return check_file(path, certificate.outcome)
    except AudioMismatch as error:
        raise Failure(Exit.UNVERIFIED, str(error)) from None


def _described(found: Certificate, network: Network) -> tuple[dict[str, object], list[str]]:
    committee = committees(network, found.task)[found.attempt]
    digest = found.votes[0].digest
    document: dict[str, object] = {
        "valid": True,
        "network": network.id,
        "task": found.task.id,
        "attempt": found.attempt,
        "outcome": found.outcome,
        "digest": digest,
        "committee": list(committee),
        "quorum": quorum(len(committee)),
        "signers": list(found.signers),
    }
    said = f"error {found.outcome['error']}" if "error" in found.outcome else f"result {digest}"
    lines = [
        f"valid      {said}",
        f"task       {found.task.id}",
        f"network    {network.id} ({network.document['name']})",
        f"attempt    {found.attempt}: {len(found.signers)} of {len(committee)} members agree, "
        f"{quorum(len(committee))} are needed",
        *(f"signed by  {signer} ({network.roster[signer].operator})" for signer in found.signers),
    ]
    return document, lines
