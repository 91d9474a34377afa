"""The daemon, its client and the command line: the only package with IO."""
