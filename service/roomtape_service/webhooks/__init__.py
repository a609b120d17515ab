"""Events on their way to HTTP receivers."""
