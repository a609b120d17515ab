"""Under which name the keys of webhooks are encrypted."""

__all__ = ["key_binding"]


def key_binding(webhook_id: str, key_id: str) -> str:
    """The name for SecretBox: a value that is moved to another webhook opens nothing there."""
    return f"webhook/{webhook_id}/{key_id}"
