"""Reading the feeds of peers: what gossip has lost comes from there (specification 7.9).

It may import what `node.sync` may. Public names: `feed_sync.FeedSync`, and `fetching`, the requests
for envelopes by their ids.
"""
