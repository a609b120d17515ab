"""The keys of webhooks: encrypted in the database, in clear only where requests are signed."""

from collections.abc import Sequence

from roomtape_service.database.webhooks import KeyRow, WebhookRow
from roomtape_service.storage.secrets import SecretBox
from roomtape_service.webhooks.formats.format import SigningKey

__all__ = ["open_keys", "seal_key"]


def seal_key(secrets: SecretBox, app_id: str, webhook_id: str, value: str) -> str:
    """A key's value for the database; it opens for the same webhook alone."""
    return secrets.seal_text(app_id, _name(webhook_id), value)


def open_keys(secrets: SecretBox, webhook: WebhookRow, keys: Sequence[KeyRow]) -> Sequence[SigningKey]:
    """The webhook's keys to sign with, in the order of `keys`. Raises SecretKeyError."""
    name = _name(webhook.webhook_id)
    return [SigningKey(secrets.open_text(webhook.app_id, name, key.value)) for key in keys]


def _name(webhook_id: str) -> str:
    return f"webhook.{webhook_id}"
