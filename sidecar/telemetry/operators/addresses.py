"""Commands about addresses: whole, without their port, or the port alone, and names of hosts."""

from __future__ import annotations

import re
from ipaddress import ip_network

from ..format_code import Value, constant, keyed, text
from ..format_syntax import Command
from .base import FormatContext, Operator, plain

_PREFIX_LENGTH = re.compile(r"([0-9]{1,3})(?::([0-9]{1,3}))?")


def _whole(address: str) -> Operator:
    return plain(text(f"{address}.text"))


def _port(address: str) -> Operator:
    return plain(keyed(f"({address}.ip and {address}.port)", lambda port: port or None))


def _without_port(address: str) -> Operator:
    expression = f"({address}.ip or {address}.text)"

    def make(command: Command, context: FormatContext) -> Value:
        if not command.arguments:
            return text(expression)
        found = _PREFIX_LENGTH.fullmatch(command.arguments)
        lengths = (int(found[1]), int(found[2] or found[1])) if found is not None else (129, 129)
        if lengths[0] > (32 if found is not None and found[2] else 128) or lengths[1] > 128:
            raise command.error("the argument is the length of the prefix to keep: of IPv4, or of IPv4:IPv6")
        return keyed(expression, lambda ip: _masked(ip, *lengths))

    return Operator(make, "optional")


def _masked(ip: str | None, v4_length: int, v6_length: int) -> str | None:
    if not ip:
        return None
    length = v6_length if ":" in ip else v4_length
    try:
        return str(ip_network(f"{ip}/{length}", strict=False))
    except ValueError:
        return None


def _all(prefix: str, address: str) -> dict[str, Operator]:
    return {
        f"{prefix}_ADDRESS": _whole(address),
        f"{prefix}_ADDRESS_WITHOUT_PORT": _without_port(address),
        f"{prefix}_PORT": _port(address),
    }


_HOST = "(host.address if host is not None else no_address)"
_UPSTREAM_LOCAL = "(stream.upstream_local_address or no_address)"
_HOST_NAME = text("host and (host.hostname or host.address.text)")

ADDRESSES = {
    **_all("DOWNSTREAM_REMOTE", "stream.remote_address"),
    **_all("DOWNSTREAM_DIRECT_REMOTE", "connection.direct_remote_address"),
    **_all("DOWNSTREAM_LOCAL", "connection.local_address"),
    **_all("DOWNSTREAM_DIRECT_LOCAL", "connection.direct_local_address"),
    **_all("UPSTREAM_LOCAL", _UPSTREAM_LOCAL),
    **_all("UPSTREAM_REMOTE", _HOST),
    "UPSTREAM_HOST": plain(text("host and host.address.text")),
    "UPSTREAM_HOST_NAME": plain(_HOST_NAME),
    "UPSTREAM_HOST_NAME_WITHOUT_PORT": plain(text("host and (host.hostname or host.address.ip or host.address.text)")),
    "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID": plain(constant("")),
}
