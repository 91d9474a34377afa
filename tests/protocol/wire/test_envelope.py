from base64 import urlsafe_b64decode
from typing import Any

import pytest

from protocol.errors import Rejection
from protocol.wire.signing import Envelope, sign
from tests.protocol.expect import rejected
from tests.support import fixtures

BODY: dict[str, Any] = {"type": "abstain", "network": "0" * 16, "z": [1, {"é": True}]}


def test_the_signature_is_over_the_domain_and_the_canonical_body() -> None:
    envelope = sign(BODY, fixtures.key(0))
    signed = (
        b'helium/1/envelope\x00{"network":"0000000000000000","type":"abstain",'
        b'"z":[1,{"\xc3\xa9":true}]}'
    )
    raw = urlsafe_b64decode(envelope.signature + "==")
    fixtures.key(0).public_key().verify(raw, signed)
    assert envelope.signer == fixtures.peer(0)
    envelope.verify()


def test_it_travels_with_three_members() -> None:
    envelope = sign({"a": 1}, fixtures.key(0))
    assert envelope.document() == {
        "body": {"a": 1},
        "signer": fixtures.peer(0),
        "signature": envelope.signature,
    }
    assert (
        envelope.encode()
        == (
            f'{{"body":{{"a":1}},"signature":"{envelope.signature}","signer":"{fixtures.peer(0)}"}}'
        ).encode()
    )


@pytest.mark.parametrize("body", [{**BODY, "type": "task"}, {**BODY, "z": [1, {"é": 1}]}, {}])
def test_another_body_is_not_what_was_signed(body: dict[str, Any]) -> None:
    envelope = sign(BODY, fixtures.key(0))
    with rejected(Rejection.BAD_SIGNATURE, fixtures.peer(0)):
        Envelope(body, envelope.signer, envelope.signature).verify()


def test_another_signer_did_not_sign_it() -> None:
    envelope = sign(BODY, fixtures.key(0))
    with rejected(Rejection.BAD_SIGNATURE, fixtures.peer(1)):
        Envelope(BODY, fixtures.peer(1), envelope.signature).verify()


def test_the_order_of_members_is_nothing() -> None:
    shuffled = dict(reversed(BODY.items()))
    assert sign(shuffled, fixtures.key(0)) == sign(BODY, fixtures.key(0))
