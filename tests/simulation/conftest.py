"""Nodes of a simulation log errors only; the configuration before is restored after each test."""

import logging
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before, configured = structlog.get_config(), structlog.is_configured()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    if configured:
        structlog.configure(**before)
    else:
        structlog.reset_defaults()
