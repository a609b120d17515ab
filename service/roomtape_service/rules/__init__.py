"""The domain rules: pure functions and data, without I/O, that import nothing else of the service."""
