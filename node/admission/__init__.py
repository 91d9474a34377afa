"""Admission control: rate limits, request limits, task policy and peer scores.

It may import `node.config`, `node.errors` and `protocol`; it knows no transport and no store.
Public names: `rate_limits`, `request_limits`, `task_policy`, `peer_score`, `lru_dict`.
"""
