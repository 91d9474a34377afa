"""The transport over py-libp2p. The only package that imports trio and libp2p.

It runs libp2p on a trio thread and bridges to asyncio; it hardens Yamux, GossipSub and the swarm.
It may import `node.admission` and `node.transport.interface`.
Public name: `transport.Libp2pTransport`.
"""
