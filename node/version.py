"""Which software this is, as it tells other peers."""

from importlib.metadata import version

AGENT = f"helium/{version('helium-node')}"
