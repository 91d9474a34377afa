"""Nodes of a simulation log errors only."""

import logging

import pytest
import structlog


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
