"""What stops the demo before anything can be judged."""

__all__ = ["DemoError"]


class DemoError(Exception):
    """The demo could not be played to its end; `str()` of it is for people."""
