"""Canonical spelling of hosts, and the difference between public and special addresses.

The standard library decides most of `is_public`. The lists here have the ranges that `is_global` of
Python 3.11 to 3.14 does not know, or not in each version.
"""

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import httpx

__all__ = ["canonical_host", "is_address", "is_loopback_name", "is_public"]

HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
"""Pattern of a host name (RFC 1123), with the underscore, which container networks use."""
NUMERIC_END = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
"""Pattern of a name that ends in a number.

Resolvers read such a name as an IPv4 address: `127.1`, `0x7f000001` and `2130706433` are
127.0.0.1.
"""
SPECIAL = [
    ip_network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "100.64.0.0/10",  # behind a provider's NAT; also the metadata of Alibaba Cloud
        "168.63.129.16/32",  # the host agent of Azure, which only its virtual machines reach
        "192.0.0.0/24",  # protocol assignments; also the metadata of Oracle Cloud
        "192.88.99.0/24",  # 6to4 relays
        "224.0.0.0/3",  # multicast, reserved and broadcast
        "2001::/23",  # protocol assignments; also Teredo, which contains IPv4 addresses
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which contains IPv4 addresses
        "3fff::/20",  # documentation
    )
]
"""Networks that are not public, in addition to those that `is_global` knows."""
UNICAST = IPv6Network("2000::/3")
"""IPv6 addresses that IANA assigns for the internet. Others are local, special or unassigned."""
NAT64 = IPv6Network("64:ff9b::/96")
"""Addresses that a NAT64 translates to the IPv4 address in their last 32 bits (RFC 6052)."""


def canonical_host(host: str) -> str:
    """Return the one spelling of a host name or address.

    A name is returned in lower case, in its ASCII form (IDNA) and without the final dot. An address
    is returned in its shortest form, and an IPv4 address in an IPv6 address as IPv4. Raise
    `ValueError` if `host` is not a host, or has a port or an IPv6 zone.
    """
    try:
        name = httpx.URL(scheme="http", host=host).raw_host.decode("ascii").removesuffix(".")
    except httpx.InvalidURL as error:
        raise ValueError("the host is invalid") from error
    if is_address(name):
        return str(_unmapped(ip_address(name)))
    if not HOST_NAME.fullmatch(name) or NUMERIC_END.fullmatch(name):
        raise ValueError("the host is invalid")
    return name


def is_address(host: str) -> bool:
    """Return True if the host is an IP address and not a name. A zone is not accepted."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def is_loopback_name(host: str) -> bool:
    """Return True if each resolver must return a loopback address for this name (RFC 6761)."""
    return f".{host}".endswith(".localhost")


def is_public(address: str) -> bool:
    """Return True if the address belongs to a host on the internet.

    Loopback, private, link-local, multicast and other special addresses are not public. The
    metadata services of clouds have such addresses.
    """
    ip = _unmapped(ip_address(address))
    if isinstance(ip, IPv6Address) and ip in NAT64:
        ip = IPv4Address(int(ip) & 0xFFFFFFFF)
    if isinstance(ip, IPv6Address) and (ip not in UNICAST or ip.scope_id):
        return False
    return ip.is_global and not any(ip in network for network in SPECIAL)


def _unmapped(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address in an IPv4-mapped IPv6 address, and any other address unchanged."""
    return (ip.ipv4_mapped if isinstance(ip, IPv6Address) else None) or ip
