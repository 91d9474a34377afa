"""One connection, from Noise messages to Yamux streams, without libp2p's locks and single frames.

`session` reads and writes Noise messages, `yamux` frames, `yamux_stream` the bytes of one stream.
`unread` bounds what waits in memory. It may import `node.transport.libp2p.quotas`.
Public names: `yamux.GuardedMuxers`, `yamux.YAMUX`.
"""
