"""Blocks that name no entry and make some: remembered with these, and only where all of them stayed."""

from __future__ import annotations

from sidecar.codec.hpack_decoder import HpackDecoder, Texts


def literal(name: bytes, value: bytes) -> bytes:
    """A literal with incremental indexing and a new name."""
    return b"\x40" + bytes((len(name),)) + name + bytes((len(value),)) + value


def test_entries_that_did_not_stay_are_not_made_by_memory() -> None:
    """Over a larger table the same block makes more entries than it did over a smaller one."""
    quick: HpackDecoder[str] = HpackDecoder(Texts())
    slow: HpackDecoder[str] = HpackDecoder(Texts())
    block = literal(b"x-user", b"alice")
    for table in (b"\x20", b"\x3f\xe1\x1f"):  # no table; 4096 octets
        for one in (table + literal(b"x-user", b"mallo"), block, block):
            slow.decode(one)
            remembered = quick.inserting.get(one)
            if remembered is None:
                _, effect = quick.decode(one)
                if effect > 0 and one is block:
                    quick.keep_inserting(one, "kept", effect)
            else:
                quick.insert(remembered)
            assert quick.entries == slow.entries
            assert quick.size == slow.size
    assert quick.entries[-1] == (b"x-user", b"alice")
