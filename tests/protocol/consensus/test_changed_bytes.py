"""No byte of a certificate or of evidence can change without failing verification."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.consensus import certificate, evidence
from protocol.consensus.evidence import Evidence
from protocol.errors import Rejected
from protocol.wire.encoding import canonical
from tests.protocol.certificates import certificate_document, reveals
from tests.protocol.rejections import PROPERTY
from tests.support import fixtures

# Each byte costs a verification. This is the smallest certificate with all members: two votes. Its
# prompt has every kind of escape, and its numbers have every canonical spelling.
NET = fixtures.network(2, committee_size=2)
TASK = fixtures.task(
    NET,
    prompt='é "\\\t\n\r/€😀',
    generation_config={"temperature": 1e-7, "top_p": 0.25, "guidance_scale": 3, "do_sample": True},
)
COMMITS = [
    fixtures.commit(NET, TASK, fixtures.peer(0), fixtures.outcome(label))
    for label in ("honest", "lie")
]


@dataclass(frozen=True, slots=True)
class Proof:
    """The bytes of a valid proof, and the function that verifies such bytes."""

    text: bytes
    verify: Callable[[bytes], object]

    def assert_rejected(self, at: int, byte: int) -> None:
        with pytest.raises(Rejected):
            self.verify(self.text[:at] + bytes((byte,)) + self.text[at + 1 :])


PROOFS = {
    "certificate": Proof(
        canonical(certificate_document(NET, TASK, reveals(NET, TASK))),
        lambda text: certificate.verify_bytes(text, NET),
    ),
    "evidence": Proof(
        Evidence.from_votes(*COMMITS).encode(), lambda text: evidence.verify_bytes(text, NET)
    ),
}
all_proofs = pytest.mark.parametrize("proof", PROOFS.values(), ids=PROOFS.keys())


@all_proofs
def test_every_changed_byte_is_rejected(proof: Proof) -> None:
    """Every position once. A letter changes its case, as JSON has 1e-7 and 1E-7 for one number.

    Of any other byte one bit flips, another bit from position to position.
    """
    proof.verify(proof.text)
    for at, byte in enumerate(proof.text):
        proof.assert_rejected(at, byte ^ (0x20 if chr(byte).isalpha() else 1 << at % 8))


@all_proofs
@given(data=st.data())
@PROPERTY
def test_any_other_byte_at_any_position_is_rejected(proof: Proof, data: st.DataObject) -> None:
    at, byte = data.draw(st.integers(0, len(proof.text) - 1)), data.draw(st.integers(0, 255))
    if byte != proof.text[at]:
        proof.assert_rejected(at, byte)
