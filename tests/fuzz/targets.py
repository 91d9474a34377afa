"""All targets, in one row."""

from tests.fuzz import documents, files, streams

TARGETS = (*documents.TARGETS, *streams.TARGETS, *files.TARGETS)
