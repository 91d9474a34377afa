"""The settings that bound what peers cost a node, each with its reason."""

from node.config import parsers
from node.config.setting import Setting


def limits() -> tuple[Setting, ...]:
    """What peers may cost this node; defaults from `node.config.limits.Limits`."""
    return (
        Setting(
            "max_connections",
            "Connections at a time; with other files they must stay below the process's limit "
            "of descriptors, usually 1,024.",
            "300",
            parsers.whole(4, 100_000),
        ),
        Setting(
            "address_connections",
            "Of these from one address, or IPv6 /64, for keys are free: a laboratory behind one "
            "router. Loopback may have half of all.",
            "32",
            parsers.whole(1, 100_000),
        ),
        Setting(
            "address_handshakes",
            "Connections a minute begun from one address other than loopback, of which each costs "
            "5 ms before it is known who it is; a minute's worth may come at once, as after a "
            "power cut.",
            "60",
            parsers.number(1, 1e6),
        ),
        Setting(
            "peer_connections",
            "Of these from one peer: it needs one, for a moment a second when both sides dial.",
            "4",
            parsers.whole(1, 100),
        ),
        Setting(
            "peer_messages",
            "Gossip messages a second read from one address (on loopback: peer), of which each "
            "costs about 1 ms; ten seconds' worth may come at once.",
            "100",
            parsers.number(1, 1e6),
        ),
        Setting(
            "peer_bytes",
            "Bytes a second read from one address (on loopback: peer), where a frame counts as "
            "32 KiB besides, and as many written to it: a sixth of a processor each.",
            str(32 * 1024 * 1024),
            parsers.whole(65_536, 999_999_999),
        ),
        Setting(
            "peer_streams",
            "Streams a second opened from one address (on loopback: peer), of which each costs "
            "about 2 ms; ten seconds' worth may come at once.",
            "100",
            parsers.number(1, 1e6),
        ),
        Setting(
            "peer_open_streams",
            "Streams of one peer at a time, for each may keep up to 2 MiB unread; an honest peer "
            "has a few requests, watches and blobs.",
            "64",
            parsers.whole(1, 100_000),
        ),
        Setting(
            "peer_submissions",
            "Tasks a minute submitted or gossiped from one address (on loopback: peer), of which "
            "each costs about 20 ms; ten seconds' worth may come at once.",
            "600",
            parsers.number(1, 1e6),
        ),
        Setting(
            "max_open",
            "Tasks that have not ended, of up to 30 kB each with their votes; more is hours of one "
            "worker's time. Half of them may be brought by one address (on loopback: peer); roster "
            "members may bring all.",
            "1000",
            parsers.whole(2, 1_000_000),
        ),
        *_wire(),
        Setting(
            "ban_points",
            "Messages, requests and answers that no honest peer sends, after which a peer is "
            "banned; forgiven_points says how soon they are forgotten.",
            "20",
            parsers.number(1, 1e6),
        ),
        Setting(
            "ban_seconds",
            "How long a peer is banned: an attacker waits, a repaired peer is let in again.",
            "300",
            parsers.number(1, 1e6),
        ),
        Setting(
            "forgiven_points",
            "Of these, points forgiven a second: a peer of another version gets some patience.",
            "0.1",
            parsers.number(0, 1e6),
        ),
        Setting(
            "idle_seconds",
            "After so long without a request, a peer that dialled this node is cut off; nodes ask "
            "for feeds every few seconds.",
            "600",
            parsers.number(1, 1e6),
        ),
        Setting(
            "reader_bytes",
            "Bytes a second that a reader must take, or it is cut off: 128 MiB in under five "
            "hours.",
            "8192",
            parsers.whole(1, 999_999_999),
        ),
        *_places(),
    )


def _wire() -> tuple[Setting, ...]:
    """What may wait for a peer, and how long for what it is to become one."""
    return (
        Setting(
            "peer_queue",
            "Gossip that may wait to be sent to one peer, in messages; libp2p's 32 drop most of a "
            "burst.",
            "4096",
            parsers.whole(32, 1_000_000),
        ),
        Setting(
            "peer_queue_bytes",
            "Gossip that may wait to be sent to one peer, in bytes, each peer having copies of its "
            "own: 32 of the largest messages.",
            str(2 * 1024 * 1024),
            parsers.whole(131_072, 999_999_999),
        ),
        Setting(
            "address_upgrades",
            "Connections of one address that may be on the way to being encrypted at a time: "
            "whoever stalls them holds few places, and briefly.",
            "16",
            parsers.whole(1, 100_000),
        ),
        Setting(
            "upgrade_seconds",
            "Seconds in which a connection must be encrypted: 0.25 s of work and far round trips; "
            "an idle socket may stay so long.",
            "4",
            parsers.number(0.1, 3600),
        ),
    )


def _places() -> tuple[Setting, ...]:
    """What may go on at a time, for one peer or address and for all of them together."""
    return (
        Setting(
            "peer_watches",
            "Tasks that one address (of roster members and on loopback: peer) may watch at a time: "
            "three quarters of a peer's streams.",
            "48",
            parsers.whole(1, 100_000),
        ),
        Setting(
            "max_watches",
            "Tasks that all but roster members may watch at a time: 10 KB of memory each; members "
            "have places of their own.",
            "1024",
            parsers.whole(1, 100_000),
        ),
        Setting(
            "peer_reads",
            "Blobs, and as many answers on tasks, that one address (of roster members and on "
            "loopback: peer) may read at a time; each blob holds a file open, each answer up to 1 "
            "MiB; a client with more tasks asks again.",
            "8",
            parsers.whole(1, 10_000),
        ),
        Setting(
            "max_reads",
            "Blobs, and as many answers on tasks, that all but roster members may read at a time; "
            "with connections, and what members read, blobs must stay below the process's limit "
            "of descriptors.",
            "64",
            parsers.whole(1, 10_000),
        ),
        Setting(
            "peer_uploads",
            "Submissions with input files that one address (on loopback: peer) may make at a time; "
            "each holds a file open.",
            "4",
            parsers.whole(1, 10_000),
        ),
        Setting(
            "max_uploads",
            "Submissions with input files that all together may make at a time, as with reads.",
            "32",
            parsers.whole(1, 10_000),
        ),
        Setting(
            "peer_feeds",
            "Pages of the feed under way to one address (of roster members and on loopback: peer), "
            "of up to 1 MiB each; an honest reader has one at a time.",
            "2",
            parsers.whole(1, 10_000),
        ),
        Setting(
            "max_feeds",
            "Pages of the feed under way to all but roster members: as many MiB of memory; each "
            "member has places of its own, so that no stranger takes the feed from it.",
            "32",
            parsers.whole(1, 10_000),
        ),
    )
