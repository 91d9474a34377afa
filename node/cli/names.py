"""What people call a peer."""

from protocol.network import Network


def name_of(peer: str, network: Network) -> str:
    """Return a peer's name for people: its operator if that tells it apart, and its id's end."""
    member = network.roster.get(peer)
    operator = member.operator if member and member.operator != peer else ""
    return f"{operator} ..{peer[-6:]}" if operator else f"..{peer[-12:]}"
