"""The disk of the data folder: its free space, and who may read its files.

It may import `node.log`. Public names: `health.DiskHealth`,
`reserve.DiskReserve`, `permissions.make_private_folder`.
"""
