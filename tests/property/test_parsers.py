"""Every parser of untrusted bytes, on mutated documents and on random bytes.

`scripts/fuzz` runs the same tests with more examples, for a given time.
"""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import schemas
from tests.property import documents, files, strategies, streams
from tests.property.parsers import Parser, verdict_of

PARSERS = (*documents.PARSERS, *streams.PARSERS, *files.PARSERS)

all_parsers = pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)


@all_parsers
def test_mutated_input_is_accepted_or_rejected(parser: Parser) -> None:
    """No other exception, and not all inputs are rejected, so that accepted ones are checked."""
    verdicts = set[str]()

    @settings(suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(content=parser.inputs)
    def parse(content: bytes) -> None:
        verdicts.add(verdict_of(parser, content))

    parse()
    assert "accepted" in verdicts
    assert len(verdicts) > 1


@all_parsers
@settings(max_examples=60)
@given(content=st.binary(max_size=300))
def test_random_bytes_are_accepted_or_rejected(parser: Parser, content: bytes) -> None:
    verdict_of(parser, content)


@pytest.mark.parametrize(
    "name", [*streams.READ, "task", "commit", "reveal", "abstain", "withdraw", "network"]
)
def test_schema_strategy_draws_valid_documents(name: str) -> None:
    """Else the parsers would only see documents that the schema rejects."""
    valid = 0

    @settings(max_examples=30, suppress_health_check=list(HealthCheck))
    @given(document=strategies.from_schema(name))
    def draw(document: object) -> None:
        nonlocal valid
        valid += _is_valid(name, document)

    draw()
    assert valid > 0


def _is_valid(name: str, document: object) -> bool:
    try:
        schemas.check(name, document)
    except schemas.SchemaViolation:
        return False
    return True
