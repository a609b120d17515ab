"""Which addresses the service connects to on behalf of those who call it.

1. A URL that a caller gives must not lead into the network in which the service stands. So an address is refused
   unless it is one of the public Internet, or in a network that the operator allows.
2. The address is judged where its socket is made, after names were looked up and for each address anew, so that what
   is judged is what is connected to: a name that leads elsewhere a moment later gains nothing.
3. IPv4 addresses inside of IPv6 ones (mapped, NAT64) are judged as what they are.

Ranges: the IANA special-purpose address registries, RFC 6890 and its successors.
"""

import errno
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias

from aiohappyeyeballs import AddrInfoType

__all__ = ["AddressGuard", "AddressRefused", "Network", "is_public"]

Network: TypeAlias = IPv4Network | IPv6Network

_NOT_PUBLIC_V4: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # behind a carrier's NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, where clouds serve credentials
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_PUBLIC_V6: Final = IPv6Network("2000::/3")
_NOT_PUBLIC_V6: Final = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, Teredo, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
_V4_BITS: Final = 0xFFFF_FFFF


class AddressRefused(OSError):
    """An address that is not connected to; `address` says which."""

    def __init__(self, address: str) -> None:
        # The text is the same for all addresses of a name, so that one error comes out where all were refused.
        super().__init__(errno.EACCES, "the address is not one of the public Internet, and not allowed")
        self.address = address


class AddressGuard:
    """Judges addresses. `allowed` are networks that are reached although they are not public."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = tuple(allowed)

    def allows(self, address: str) -> bool:
        """Whether the address may be connected to. Raises ValueError for what is no address."""
        found = _unwrapped(ip_address(address))
        return is_public(found) or any(found in network for network in self._allowed)

    def open_socket(self, address: AddrInfoType) -> socket.socket:
        """The socket for a connection to the address. Raises AddressRefused, and OSError."""
        family, kind, protocol, _, place = address
        host = str(place[0])
        if not self.allows(host):
            raise AddressRefused(host)
        return socket.socket(family, kind, protocol)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one that the public Internet leads to."""
    address = _unwrapped(address)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    return address in _PUBLIC_V6 and not any(address in network for network in _NOT_PUBLIC_V6)


def _unwrapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & _V4_BITS)
    return address
