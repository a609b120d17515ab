"""Files that grow: one append-only writer for each container."""
