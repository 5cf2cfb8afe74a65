"""The number by which consistent hashing chooses a host for a request.

Source: Envoy's ``RouteAction.HashPolicy`` reference. Hashes are XXH64 and combine as Envoy combines them, so that both
proxies send a request to the same host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from xxhash import xxh64_intdigest

from sidecar.config.hash_policy import HashCookie, HashHeader, HashPolicy, HashQueryParameter, HashSourceIp
from sidecar.core.cookies import cookie_attributes, cookie_value
from sidecar.core.head import Head, RequestHead
from sidecar.core.matching import compile_substitution, query_parameter

HashKey = Callable[[Any], int | None]
"""From the stream to its hash; None when no policy yields one."""

SET_COOKIES = "set_cookies"
"""The key in ``stream.data`` of the list of ``set-cookie`` values that a hash policy wants in the response."""

_MASK = (1 << 64) - 1


def compile_hash_policies(policies: Sequence[HashPolicy], make_cookies: bool = True) -> HashKey | None:
    """All policies of a route as one function, or None when there are none.

    Where a cookie with a ``ttl`` is missing, its ``set-cookie`` is put into ``stream.data[SET_COOKIES]``, unless
    ``make_cookies`` is False: then that policy yields nothing.
    """
    methods = tuple((_compile_policy(policy, make_cookies), policy.terminal) for policy in policies)
    if not methods:
        return None
    if len(methods) == 1:
        return methods[0][0]

    def hash_key(stream: Any) -> int | None:
        key: int | None = None
        for method, terminal in methods:
            new = method(stream)
            if new is not None:
                key = new if key is None else ((key << 1 | key >> 63) & _MASK) ^ new
            if terminal and key is not None:
                break
        return key

    return hash_key


def makes_cookies(policies: Sequence[HashPolicy]) -> bool:
    """Whether a response may have to bring its client a cookie: then `send_cookies` belongs to its mutations."""
    return any(isinstance(policy, HashCookie) and policy.ttl is not None for policy in policies)


def send_cookies(head: Head, stream: Any) -> None:
    """Put the cookies that were made for a request into its response."""
    for value in stream.data.pop(SET_COOKIES, ()):
        head.add(b"set-cookie", value)


def _compile_policy(policy: HashPolicy, make_cookies: bool) -> HashKey:
    match policy:
        case HashHeader():
            return _compile_header(policy)
        case HashCookie():
            return _compile_cookie(policy, make_cookies)
        case HashQueryParameter():
            name = policy.name

            def by_parameter(stream: Any) -> int | None:
                value = query_parameter(stream.request.path, name)
                return None if value is None else xxh64_intdigest(value)

            return by_parameter
        case HashSourceIp():
            return _source_ip


def _source_ip(stream: Any) -> int | None:
    ip = stream.remote_address.ip
    return None if ip is None else xxh64_intdigest(ip.encode())


def _compile_header(policy: HashHeader) -> HashKey:
    name = policy.header_name
    pseudo = name[:1] == b":" or name == b"host"
    substitute = None if policy.regex_rewrite is None else compile_substitution(policy.regex_rewrite)

    def by_header(stream: Any) -> int | None:
        request: RequestHead = stream.request
        if pseudo:
            value = request.lookup(name)
            values = [] if value is None else [value]
        else:
            values = request.get_all(name)
        if not values:
            return None
        if substitute is not None:
            values = [substitute(value) for value in values]
        if len(values) == 1:
            return xxh64_intdigest(values[0])
        key = 0
        for value in sorted(values):  # several headers give the same hash in whatever order they come
            key = xxh64_intdigest(value, key)
        return key

    return by_header


def _compile_cookie(policy: HashCookie, make_cookies: bool) -> HashKey:
    name = policy.name
    attributes = cookie_attributes(policy.ttl, policy.path, policy.attributes)
    makes = make_cookies and policy.ttl is not None

    def by_cookie(stream: Any) -> int | None:
        value = cookie_value(stream.request, name)
        if not value:
            if not makes:
                return None
            connection = stream.connection
            ends = connection.remote_address.text + connection.local_address.text
            value = b"%x" % xxh64_intdigest(ends.encode())
            made = b'%b="%b"%b' % (name, value, attributes)
            cookies = stream.data.setdefault(SET_COOKIES, [])
            if made not in cookies:  # another attempt asks again
                cookies.append(made)
        return xxh64_intdigest(value)

    return by_cookie
