"""Joining segments into one file: a process of its own, which gets its sources through a pipe and writes the file."""
