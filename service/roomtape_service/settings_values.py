"""How one value of the settings is read, from a file's typed value or from text.

Each reader takes a raw value and gives the parsed one, or raises ValueError whose text says what was found
and what to write instead. Readers take back what they gave.
"""

import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

__all__ = [
    "Address",
    "ApiKey",
    "Network",
    "api_keys",
    "application",
    "application_ids",
    "choice",
    "count",
    "database_url",
    "host_and_port",
    "networks",
    "number",
    "path",
    "text",
    "url",
]

_MAX_PORT = 65_535
_APPLICATION = re.compile(r"[A-Za-z0-9.-]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens. Port 0 lets the system choose one."""

    host: str
    port: int

    @staticmethod
    def read(value: object) -> "Address":
        """Out of `host:port`, with an IPv6 address in brackets."""
        if isinstance(value, Address):
            return value
        host, colon, port = text(value).rpartition(":")
        bare = host.removeprefix("[").removesuffix("]")
        if not colon or not bare or (":" in bare) != host.startswith("["):
            raise ValueError(
                f"{value!r} is no address; write host:port, such as 127.0.0.1:7400 or [::1]:7400"
            )
        if not port.isascii() or not port.isdigit() or int(port) > _MAX_PORT:
            raise ValueError(f"{port!r} in {value!r} is no port; write 0 to {_MAX_PORT}")
        return Address(bare, int(port))

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it. Names but localhost are not looked up: they don't count."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def wildcard(self) -> bool:
        """Whether it is every address of the machine."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def host_and_port(value: object) -> str:
    """Out of `host:port`, where others listen."""
    return str(Address.read(value))


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that callers may use: its SHA-256 in lower-case hexadecimal, and its application ids or `*`."""

    sha256: str
    applications: tuple[str, ...]

    def raw(self) -> dict[str, object]:
        """What makes the same key again; fit for JSON."""
        return {"sha256": self.sha256, "applications": list(self.applications)}


@dataclass(frozen=True, slots=True)
class Network:
    """Addresses that begin alike."""

    value: ipaddress.IPv4Network | ipaddress.IPv6Network

    def raw(self) -> str:
        """What makes the same network again; fit for JSON."""
        return str(self.value)


def text(value: object) -> str:
    """A string that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} is no text")
    return value.strip()


def path(value: object) -> Path:
    """A path, made absolute, so that all processes mean the same."""
    return Path(value if isinstance(value, Path) else text(value)).expanduser().absolute()


def url(value: object) -> str:
    """An http or https URL without a slash at its end."""
    parts = urlsplit(text(value))
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{value!r} is no base URL; write http://host:port or https://host/path")
    return text(value).rstrip("/")


def database_url(value: object) -> str:
    """A URL of a database that the service can use."""
    if not text(value).startswith(("sqlite:///", "postgresql://")):
        # The value may hold a password, so it is not repeated.
        raise ValueError("that is no database; write sqlite:///path or postgresql://user:password@host/name")
    return text(value)


def application(value: object) -> str:
    """An application id, or nothing."""
    if value == "":
        return ""
    if not _APPLICATION.fullmatch(text(value)):
        raise ValueError(f"{value!r} is no application id; write 1 to 64 letters, digits, `-` and `.`")
    return text(value)


def choice(*names: str) -> Callable[[object], str]:
    """One of the names."""

    def read(value: object) -> str:
        if value not in names:
            raise ValueError(f"{value!r} is not known; write {' or '.join(names)}")
        return str(value)

    return read


def count(least: int, most: int) -> Callable[[object], int]:
    """A whole number in a range."""

    def read(value: object) -> int:
        parsed = int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value) else value
        if not isinstance(parsed, int) or isinstance(parsed, bool) or not least <= parsed <= most:
            raise ValueError(f"{value!r} is out of range; write a whole number from {least} to {most}")
        return parsed

    return read


def number(least: float, most: float) -> Callable[[object], float]:
    """A number in a range."""

    def read(value: object) -> float:
        try:
            parsed = float(value) if isinstance(value, int | float | str) and value is not True else math.nan
        except ValueError:
            parsed = math.nan
        if not least <= parsed <= most:
            raise ValueError(f"{value!r} is out of range; write a number from {least:g} to {most:g}")
        return parsed

    return read


def networks(value: object) -> tuple[Network, ...]:
    """Networks out of a file's list of texts, or of one text with spaces between them."""
    items = value.split() if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError('networks are a list such as ["10.1.0.0/16"]')
    return tuple(item if isinstance(item, Network) else _network(item) for item in items)


def _network(item: object) -> Network:
    try:
        return Network(ipaddress.ip_network(text(item)))
    except ValueError:
        raise ValueError(
            f"{item!r} is no network; write an address and its bits, such as 10.1.0.0/16"
        ) from None


def api_keys(value: object) -> tuple[ApiKey, ...]:
    """Keys out of a file's list of tables, or of text `<sha256>=<app>,<app> <sha256>=*`."""
    if isinstance(value, str):
        items: list[object] = [_key_of_text(item) for item in value.split()]
    elif isinstance(value, list | tuple):
        items = list(value)
    else:
        raise ValueError("keys are a list of { sha256 = …, applications = […] }")
    keys = tuple(item if isinstance(item, ApiKey) else _key_of_table(item) for item in items)
    if len({key.sha256 for key in keys}) < len(keys):
        raise ValueError("a sha256 stands twice; write each key once, with all of its applications")
    return keys


def _key_of_text(item: str) -> object:
    digest, _, applications = item.partition("=")
    return {"sha256": digest, "applications": applications.split(",") if applications else []}


def _key_of_table(item: object) -> ApiKey:
    if not isinstance(item, Mapping) or set(item) != {"sha256", "applications"}:
        raise ValueError("each key has exactly `sha256` and `applications`")
    digest, applications = item["sha256"], item["applications"]
    # Never repeated: who puts the key itself here by mistake must not find it in a log.
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise ValueError(
            "a sha256 is not 64 lower-case hexadecimal digits; make it by `printf %s KEY | sha256sum`"
        )
    return ApiKey(digest, application_ids(applications))


def application_ids(value: object) -> tuple[str, ...]:
    """Application ids, or `*` for all of them."""
    if not isinstance(value, list | tuple) or not value:
        raise ValueError('`applications` is a list of application ids, or ["*"]')
    for app_id in value:
        if app_id != "*" and not (isinstance(app_id, str) and _APPLICATION.fullmatch(app_id)):
            raise ValueError(
                f"{app_id!r} is no application id; write 1 to 64 letters, digits, `-` and `.`, or `*`"
            )
    return tuple(value)
