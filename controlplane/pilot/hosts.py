"""Hosts as resources name them, which may be wildcards."""

from __future__ import annotations


def covers(wildcard: str, host: str) -> bool:
    """Whether a host that may begin with `*` stands for another one, which may do so, too: `*.example.com` covers
    `a.example.com` and `*.a.example.com`, and everything covers itself.
    """
    return host == wildcard or (wildcard.startswith("*") and host.endswith(wildcard[1:]) and host != wildcard[2:])
