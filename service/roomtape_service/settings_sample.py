"""The settings file that has every setting and its default: `service/sample.toml`."""

import textwrap
from collections.abc import Mapping

from roomtape_service.settings import FIELDS

__all__ = ["sample"]


def sample() -> str:
    """A settings file with every setting, all commented out."""
    lines = ["# Every setting and its default. `roomtape serve --config this-file` reads it.", ""]
    for name, about in FIELDS.items():
        lines += textwrap.wrap(about.help, 100, initial_indent="# ", subsequent_indent="# ")
        lines.append(f"# Default: {about.default_text}." if about.default_text else "# Default as shown.")
        lines.append(f"#{name} = {_SAMPLES.get(name) or _toml(about.default)}")
        lines.append("")
    return "\n".join(lines)


# Values for the sample where the default is none, or is made of other settings.
_SAMPLES: Mapping[str, str] = {
    "tls_certificate_file": '"/etc/roomtape/fullchain.pem"',
    "tls_key_file": '"/etc/roomtape/key.pem"',
    "advertise": '"recorder.example.com:7400"',
    "public_url": '"https://recorder.example.com:7401"',
    "api_keys": f'[{{ sha256 = "{"0" * 64}", applications = ["my-app"] }}]',
    "workers": "4",
    "database_url": '"sqlite:////var/lib/roomtape/roomtape.db"',
    "storage_root": '"/var/lib/roomtape/files"',
    "secret_key_file": '"/etc/roomtape/secret.key"',
    "credential_sources": '{ vault = { type = "file", path = "/run/vault.json", applications = ["my-app"] } }',
    "create_default_application": '"demo"',
    "webhook_allowed_networks": '["10.1.0.0/16"]',
    "failpoints_file": '"/tmp/failpoints.json"',
}


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
