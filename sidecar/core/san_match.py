"""Compiled conditions on the subject alternative names of certificates.

Source: Envoy's `SubjectAltNameMatcher`.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.config.tls_secrets import SubjectAltNameMatcher
from sidecar.core.matching import compile_string

SanTest = Callable[[str, bytes], bool]


def matches_dns_name(pattern: bytes, name: bytes) -> bool:
    """Whether a certificate's DNS name (``pattern``, perhaps with a wildcard for one whole label) stands for ``name``."""
    pattern, name = pattern.lower(), name.lower()
    if pattern[:2] == b"*.":
        label, dot, rest = name.partition(b".")
        return bool(label) and dot == b"." and rest == pattern[2:]
    return pattern == name


def compile_san(matcher: SubjectAltNameMatcher, kind: str = "") -> SanTest:
    """A ``SubjectAltNameMatcher`` as a condition on the type and value of a name; ``kind`` is its type if it has none."""
    wanted = matcher.san_type or kind
    test = compile_string(matcher.matcher)
    if matcher.matcher.match_pattern == "exact" and wanted in ("DNS", ""):
        exact = matcher.matcher.value

        def by_name(kind: str, value: bytes) -> bool:
            if kind == "DNS":
                return matches_dns_name(value, exact)
            return not wanted and test(value)

        return by_name
    if not wanted:
        return lambda kind, value: test(value)
    return lambda kind, value: kind == wanted and test(value)
