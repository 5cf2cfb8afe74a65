"""Which of the chain's compressors a response is for, by the client's ``Accept-Encoding``.

Source: RFC 9110 section 12.5.3, and Envoy's compressor filter ("How it works") for where it is laxer or stricter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Outcome = Literal["compressor", "identity", "wildcard", "not_valid"]


@dataclass(frozen=True, slots=True)
class Choice:
    """The content coding to use (empty for none), and what of the header led to it."""

    coding: bytes
    outcome: Outcome


_NOT_VALID = Choice(b"", "not_valid")


@lru_cache(maxsize=256)
def parse_accept_encoding(value: bytes) -> tuple[tuple[bytes, float], ...]:
    """The codings with their q-values, in the header's order; those whose q-value is no number are left out."""
    pairs = []
    for token in value.split(b","):
        coding, _, parameter = token.partition(b";")
        coding = coding.strip()
        if not coding:
            continue
        q = 1.0
        name, equals, number = parameter.partition(b"=")
        if equals and name.strip().lower() == b"q":
            try:
                q = float(number) if b"_" not in number else -1.0
            except ValueError:
                continue
        if q == q and q >= 0.0:
            pairs.append((coding, q))
    return tuple(pairs)


def choose_coding(value: bytes, offered: Sequence[bytes], preferred: bytes = b"") -> Choice:
    """The coding with the highest q-value among ``offered`` (in the order of the chain), identity and ``*``.

    Of equals the one that the header names first, unless ``preferred`` is among them. Names are compared as they stand.
    """
    pairs = parse_accept_encoding(value)
    refused = {coding for coding, q in pairs if q == 0.0}
    left = [coding for coding in dict.fromkeys(offered) if coding not in refused]
    best, best_q = b"", 0.0
    for coding, q in pairs:
        if q > best_q and (coding in left or coding in (b"identity", b"*")):
            best, best_q = coding, q
    if best_q == 0.0:
        return _NOT_VALID
    if preferred in left and (preferred, best_q) in pairs:
        best = preferred
    if best == b"identity":
        return Choice(b"", "identity")
    if best == b"*":
        if not left:
            return _NOT_VALID
        return Choice(preferred if preferred in left else left[0], "wildcard")
    return Choice(best, "compressor")
