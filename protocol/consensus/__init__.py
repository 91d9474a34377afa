"""Agreement on one task: committees, the commit–reveal machine, certificates and evidence.

It may import `protocol.wire`, `protocol.network`, `protocol.errors` and `protocol.constants`.
Public names: `agreement.Agreement` and its `effects`, `certificate`, `evidence`, `committee`,
`conduct`, `vote_set.VoteSet`. Internal: `round` (one attempt) and `tally` (vote counting).
Sans-IO: events and times in, effects out.
"""
