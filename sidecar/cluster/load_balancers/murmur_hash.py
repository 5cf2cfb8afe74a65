"""MurmurHash2 in the 64-bit form of libstdc++'s `std::hash`, which Envoy's ring offers beside xxHash64.

Source: Austin Appleby's MurmurHash64A, with the seed that libstdc++ uses.
"""

from __future__ import annotations

_SEED = 0xC70F6907
_MULTIPLIER = 0xC6A4A7935BD1E995
_MASK = 0xFFFFFFFFFFFFFFFF


def murmur_hash_2(data: bytes, seed: int = _SEED) -> int:
    """The hash of `data`, an unsigned 64-bit number."""
    value = seed ^ (len(data) * _MULTIPLIER & _MASK)
    whole = len(data) & ~7
    for at in range(0, whole, 8):
        word = int.from_bytes(data[at : at + 8], "little") * _MULTIPLIER & _MASK
        word = (word ^ word >> 47) * _MULTIPLIER & _MASK
        value = (value ^ word) * _MULTIPLIER & _MASK
    if whole != len(data):
        value = (value ^ int.from_bytes(data[whole:], "little")) * _MULTIPLIER & _MASK
    value = (value ^ value >> 47) * _MULTIPLIER & _MASK
    return value ^ value >> 47
