"""Which URLs a webhook may have, as far as the URL itself says."""

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

__all__ = ["MAX_URL_CHARACTERS", "url_problem"]

MAX_URL_CHARACTERS = 2_048

_MAX_HOST_CHARACTERS = 253
# RFC 3986, 2.2 and 2.3, and the sign of an escape.
_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
# Resolvers take such a host as an IPv4 address in one of its old spellings (127.1, 0x7f000001, 017700000001).
_LOOKS_NUMERIC = re.compile(r"(0[xX][0-9a-fA-F]*|[0-9]+)")
_LOOPBACK_NAME = "localhost"
_LOOPBACK = "127.0.0.1"


def url_problem(url: str, *, http: bool, allows: Callable[[str], bool]) -> str | None:
    """What is wrong with the URL of a receiver, and what to do; None if nothing is. It never repeats the URL.

    `http` says whether the operator allows connections without TLS. `allows` judges an IP address; it is asked of hosts
    that are one, since names are looked up only when they are connected to.
    """
    if len(url) > MAX_URL_CHARACTERS:
        return f"has {len(url)} characters; at most {MAX_URL_CHARACTERS} fit"
    if not _URL.fullmatch(url):
        return "has characters that URLs may not have; write others than ASCII as %XX, and names as punycode"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "is no URL; write https://host/path"
    if parts.scheme not in ("https", "http") or not host:
        return "is not https://host/path"
    if parts.scheme == "http" and not http:
        return "is http, which this server's operator does not allow (webhook_http); write https://"
    if "@" in parts.netloc:
        return "has a user name or password; leave it out, requests are signed by the webhook's key"
    if "#" in url:
        return "has a fragment; leave out the `#` and what follows it"
    if port == 0:
        return "has port 0; write 1 to 65535 or none"
    return _host_problem(host, allows)


def _host_problem(host: str, allows: Callable[[str], bool]) -> str | None:
    address = _address(host)
    if address is not None:
        if allows(str(address)):
            return None
        return (
            f"leads to {address}, no address of the public Internet; use one, or ask the operator to allow it "
            "(webhook_allowed_networks)"
        )
    name = host.removesuffix(".")
    labels = name.split(".")
    if len(name) > _MAX_HOST_CHARACTERS or not all(_LABEL.fullmatch(label) for label in labels):
        return "has a host that is no name; write one such as hooks.example.com"
    if _LOOKS_NUMERIC.fullmatch(labels[-1]):
        return "has a host that is half an address; write four decimal numbers, or a name"
    if labels[-1].lower() == _LOOPBACK_NAME and not allows(_LOOPBACK):
        return (
            "leads to the server itself; use another host, or ask the operator to allow it "
            "(webhook_allowed_networks)"
        )
    return None


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return None if "%" in host else ip_address(host)
    except ValueError:
        return None
