"""Commands about addresses: whole, without their port, or the port alone, and names of hosts."""

from __future__ import annotations

import re
from ipaddress import ip_network

from ..format_code import Value, constant, keyed, text
from ..format_syntax import Command
from .base import FormatContext, Operator, plain

_PREFIX_LENGTH = re.compile(r"[0-9]{1,2}|1[01][0-9]|12[0-8]")


def _whole(address: str) -> Operator:
    return plain(text(f"{address}.text"))


def _port(address: str) -> Operator:
    return plain(keyed(f"({address}.ip and {address}.port)", lambda port: port or None))


def _without_port(address: str) -> Operator:
    expression = f"({address}.ip or {address}.text)"

    def make(command: Command, context: FormatContext) -> Value:
        if not command.arguments:
            return text(expression)
        if not _PREFIX_LENGTH.fullmatch(command.arguments):
            raise command.error("the argument is the length of the prefix to keep, a number up to 128")
        length = int(command.arguments)
        return keyed(expression, lambda ip: _masked(ip, length))

    return Operator(make, "optional")


def _masked(ip: str | None, length: int) -> str | None:
    """The network that the address is in; a Unix socket is in none."""
    if not ip:
        return None
    try:
        return str(ip_network(f"{ip}/{length if ':' in ip else min(length, 32)}", strict=False))
    except ValueError:
        return None


def _all(prefix: str, address: str) -> dict[str, Operator]:
    return {
        f"{prefix}_ADDRESS": _whole(address),
        f"{prefix}_ADDRESS_WITHOUT_PORT": _without_port(address),
        f"{prefix}_PORT": _port(address),
    }


_HOST = "(host.address if host is not None else no_address)"
_UPSTREAM_REMOTE = "(host.address if host is not None and stream.upstream_local_address else no_address)"
_UPSTREAM_LOCAL = "(stream.upstream_local_address or no_address)"
_HOST_NAME = text("host and (host.hostname or host.address.text)")

ADDRESSES = {
    **_all("DOWNSTREAM_REMOTE", "stream.remote_address"),
    **_all("DOWNSTREAM_DIRECT_REMOTE", "connection.direct_remote_address"),
    **_all("DOWNSTREAM_LOCAL", "connection.local_address"),
    **_all("DOWNSTREAM_DIRECT_LOCAL", "connection.direct_local_address"),
    **_all("UPSTREAM_LOCAL", _UPSTREAM_LOCAL),
    **_all("UPSTREAM_REMOTE", _UPSTREAM_REMOTE),
    "UPSTREAM_HOST": plain(text("host and host.address.text")),
    "UPSTREAM_HOST_NAME": plain(_HOST_NAME),
    "UPSTREAM_HOST_NAME_WITHOUT_PORT": plain(text("host and (host.hostname or host.address.ip or host.address.text)")),
    "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID": plain(constant("")),
}
