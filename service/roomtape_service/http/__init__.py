"""The HTTP edge: playback."""
