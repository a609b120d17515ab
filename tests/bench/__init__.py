"""Measurements against peers: `make bench`, or `make bench ONLY=name` for one row."""
