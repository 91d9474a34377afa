"""What a job of each task kind does, one module per kind. Run in the worker only."""
