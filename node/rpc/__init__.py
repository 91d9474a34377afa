"""Requests between peers: framing, their codec, the client side, the server side and uploads.

It may import `node.consensus`, `node.transport.interface`, `node.storage` and below.
Public names: `framing`, `codec`, `client`, `dispatcher`, `feeds`, `hello`, `server`.
"""
