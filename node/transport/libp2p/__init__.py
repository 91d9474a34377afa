"""The transport over py-libp2p, the only package that imports trio and libp2p.

`transport` runs a `host` in a trio thread behind `trio_bridge`. `swarm`, `muxing`, `gossipsub` and
`stream` guard libp2p's parts against bad peers; `quotas` holds their rate limits. `net_stream` and
`negotiation` do what libp2p's own do, with fewer writes and without locks.
It may import `node.admission` and `node.transport.interface`.
Public name: `transport.Libp2pTransport`.
"""
