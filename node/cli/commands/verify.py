"""`helium verify`: a certificate against the network document, offline."""

from pathlib import Path

import click

from node.cli import options
from node.cli.exit_codes import Exit, Failure
from node.cli.files import FILE, check_readable, read
from protocol.consensus.certificate import Certificate, verify_bytes
from protocol.consensus.committee import committees, quorum
from protocol.constants import CERTIFICATE_LIMIT
from protocol.errors import Rejected, Rejection
from protocol.manifest import outputs_of, tokens_of
from protocol.network import Network

EPILOG = """\b
Examples:
  helium verify song.wav.certificate.json --network network.json
  helium verify song.wav.certificate.json --network network.json --audio song.wav

\b
Output:
  valid      the hash of the certified outcome, or the error that was agreed
  requester  the peer that asked for the task; it signed it
  attempt    how many members of the committee agree, and how many are needed
  operators  how many operators stand behind the certificate
  signed by  a member that agreed, and its operator
  work       the proof that the members computed the steps, if the task proves work; not checked
             here: it takes a computation
  tokens     the hash and the size of an output's tokens, from which the steps can be computed anew
  audio      the output of the certificate whose samples the file holds

\b
Exit code 0: every check passed. Exit code 6, with the reason: a check failed. The reason begins
with a code such as bad-signature or outcomes-differ; protocol/README.md, section 9, has them all.
"""

NO_CERTIFICATE = " (a certificate is a JSON file, such as song.wav.certificate.json)"


@click.command(epilog=EPILOG)
@click.argument("certificate", type=FILE)
@options.network
@click.option(
    "--audio",
    type=FILE,
    metavar="FILE",
    help="Also check that this WAV or MIDI file is an output of the certificate.",
)
@options.as_json
def verify(certificate: Path, network: Path | None, audio: Path | None, as_json: bool) -> None:
    """Verify CERTIFICATE against the network document, offline.

    `-` reads standard input. It checks the task, the committee, every signature, the quorum, that
    the votes are equal, and that every signer committed before any of them revealed. With --audio
    it also checks that the file's samples are exactly the certified ones.
    """
    # A missing file is wrong usage (2), not a failed verification (6): look for it first.
    if audio is not None:
        check_readable(audio)
    chosen = options.chosen_network(options.settings({"network": network}).network)
    try:
        verified = verify_bytes(read(certificate, CERTIFICATE_LIMIT), chosen)
    except Rejected as error:
        hint = "" if error.reason is not Rejection.MALFORMED else NO_CERTIFICATE
        raise Failure(Exit.UNVERIFIED, f"{certificate}: {error}{hint}") from None
    document, lines = _describe(verified, chosen)
    if audio is not None:
        output = _check_audio(audio, verified)
        document["audio"] = {"path": str(audio), "output": output}
        lines.append(f"audio      {audio} is output {output} of it, sample for sample")
    options.say(document, lines, as_json)


def _check_audio(path: Path, certificate: Certificate) -> int:
    # numpy takes longer to import than everything else here.
    from node.client.result import AudioMismatch, check_file

    try:
        return check_file(path, certificate.outcome)
    except AudioMismatch as error:
        raise Failure(Exit.UNVERIFIED, str(error)) from None


def _describe(certificate: Certificate, network: Network) -> tuple[dict[str, object], list[str]]:
    """Return a valid certificate as the JSON document and as lines."""
    committee = committees(network, certificate.task)[certificate.attempt]
    needed, outcome = quorum(len(committee)), certificate.outcome
    digest, operators = certificate.votes[0].digest, certificate.operators(network)
    tokens = [
        (index, blob)
        for index, output in enumerate(outputs_of(outcome))
        if (blob := tokens_of(output)) is not None
    ]
    document: dict[str, object] = {
        "valid": True,
        "network": network.id,
        "task": certificate.task.id,
        "requester": certificate.task.requester,
        "attempt": certificate.attempt,
        "outcome": outcome,
        "digest": digest,
        "committee": list(committee),
        "quorum": needed,
        "signers": list(certificate.signers),
        "operators": len(operators),
        "work": outcome.get("work"),
        "tokens": [
            {"output": index, "sha256": blob.sha256, "size": blob.size} for index, blob in tokens
        ],
    }
    agreed = f"error {outcome['error']}" if "error" in outcome else f"result {digest}"
    signers = [f"{signer} ({network.roster[signer].operator})" for signer in certificate.signers]
    lines = [
        f"valid      {agreed}",
        f"task       {certificate.task.id}",
        f"requester  {certificate.task.requester}",
        f"network    {network.id} ({network.document['name']})",
        f"attempt    {certificate.attempt}: {len(signers)} of {len(committee)} members agree, "
        f"{needed} are needed",
        f"operators  {len(operators)}: {', '.join(sorted(operators))}",
        *(f"signed by  {signer}" for signer in signers),
        *([f"work       {outcome['work']}"] if "work" in outcome else []),
        *(f"tokens     {b.sha256} of output {i}, {b.size} bytes" for i, b in tokens),
    ]
    return document, lines
