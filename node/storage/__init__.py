"""The node's data folder: the SQLite journal and ledger, the rollback guard and the blob store.

It may import `node.clock`, `node.errors` and `protocol`. It is the only package that opens files in
the data folder. Public names: `database.open_database`, `journal.Journal`, `ledger.Ledger`,
`reader.read_ledger`, `blobs.BlobStore`, `errors`.
"""
