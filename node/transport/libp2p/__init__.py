"""The transport over py-libp2p, the only package that imports trio and libp2p.

`transport` runs a `host` in a trio thread behind `trio_bridge`. `swarm`, `yamux`, `gossipsub` and
`stream` guard libp2p's parts against bad peers; `quotas` holds their rate limits.
It may import `node.admission` and `node.transport.interface`.
Public name: `transport.Libp2pTransport`.
"""
