"""Segments on the local disk: their journals, and recovery after a crash."""
