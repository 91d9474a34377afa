"""Errors of the data folder."""

from schemas.errors import HeliumError


class UnusableDatabase(HeliumError):
    """The database cannot be used; the message says why and what to do."""


class BlobRefused(HeliumError, ValueError):
    """The bytes differ from what was declared: another size or another hash."""


class DiskQuotaExceeded(HeliumError, OSError):
    """The blob folder has no room left for bytes received from peers."""
