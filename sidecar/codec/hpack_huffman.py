"""The Huffman code of HPACK (RFC 7541 section 5.2 and appendix B), both ways, driven by whole bytes.

The code is canonical: codes of one length count up in the order of their symbols, and a longer code starts where the
shorter ones ended. So the lengths alone make it. Decoding steps through rows, one for each inner node of the tree, of
256 entries each: what a byte completes from there, and the row to go on with. Rows are filled when they are first met.

DEFLATE's codes are canonical in just this way, so zlib can decode a text, too, and does for all but short ones: its
alphabet is given our codes of up to 15 bits, which are those of nearly all ASCII, and one code is left for the end of
the block: 15 ones, which is how all longer codes begin, and what the padding begins, too.
"""

from __future__ import annotations

import zlib
from typing import Final

_LENGTHS: Final = (
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28,
    28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15,
    6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20,
    20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23,
    24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22,
    22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27,
    24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26,
    26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
)  # fmt: skip
"""Bits of the code of each octet, and of EOS."""

_EOS: Final = 256

Row = list["tuple[Row, bytes] | None"]


def _codes() -> list[str]:
    """The codes as text of 0 and 1, by symbol."""
    codes = [""] * 257
    code = 0
    length = 0
    for bits, symbol in sorted((bits, symbol) for symbol, bits in enumerate(_LENGTHS)):
        code <<= bits - length
        length = bits
        codes[symbol] = format(code, f"0{bits}b")
        code += 1
    return codes


_CODES: Final = _codes()
_SYMBOLS: Final = {code: symbol for symbol, code in enumerate(_CODES)}
_PREFIXES: Final = sorted({code[:bits] for code in _CODES for bits in range(len(code))}, key=len)
_ROWS: Final[dict[str, Row]] = {prefix: [] for prefix in _PREFIXES}
_PREFIX_OF: Final = {id(row): prefix for prefix, row in _ROWS.items()}
_ROOT: Final = _ROWS[""]
_ENDS: Final = frozenset(id(row) for prefix, row in _ROWS.items() if len(prefix) < 8 and "0" not in prefix)
"""Rows where a text may end: what is left is padding, fewer than eight ones (RFC 7541 section 5.2)."""
_BITS: Final = [format(byte, "08b") for byte in range(256)]


def _fill(row: Row) -> None:
    """Compute where each byte leads from ``row``; None where it completes EOS, which no text may contain."""
    start = _PREFIX_OF[id(row)]
    entries: Row = []
    for bits in _BITS:
        prefix = start
        piece = b""
        for bit in bits:
            prefix += bit
            symbol = _SYMBOLS.get(prefix)
            if symbol is not None:
                prefix = ""
                if symbol == _EOS:
                    break
                piece += b"%c" % symbol
        else:
            entries.append((_ROWS[prefix], piece))
            continue
        entries.append(None)
    row[:] = entries


def _deflate_header() -> bytes:
    """A DEFLATE block up to its first code (RFC 1951 section 3.2.7)."""
    lengths = [bits if bits <= _LONGEST_DEFLATED else 0 for bits in _LENGTHS[:_EOS]]
    lengths += [_LONGEST_DEFLATED, 0]  # the end of the block; no distances
    bits = "0100000000" * 3  # three empty blocks, for what follows to end with a whole byte
    bits += "101" + "00000" + "00000" + "1111"  # the last block, dynamic; 257 and 1 and 19 lengths, least bit first
    bits += "000" * 3 + "001" * 16  # lengths 0 to 15 are written in 4 bits, and there are no runs
    bits += "".join([format(length, "04b") for length in lengths])
    return bytes([int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8)])


_LONGEST_DEFLATED: Final = 15
_REVERSED: Final = bytes([int(bits[::-1], 2) for bits in _BITS])  # DEFLATE fills bytes from the least bit
_INFLATER: Final = zlib.decompressobj(-9)
_INFLATER.decompress(_deflate_header())
_SHORT: Final = 20
_FIFTEEN_ONES: Final = b"\xff\x7f"


def decode(data: bytes) -> bytes:
    """The text that ``data`` codes. Raises ValueError for EOS inside of it and for wrong padding."""
    if len(data) >= _SHORT:
        # One more than fifteen could complete a symbol that the data leaves open. An end of block that takes nine or more of
        # them has begun in the last six bits of the data, and so in the padding; one that takes eight or seven, too, if
        # fewer than 8 ones end the data.
        inflater = _INFLATER.copy()
        text = inflater.decompress(data.translate(_REVERSED) + _FIFTEEN_ONES)
        if inflater.eof:
            unused = inflater.unused_data
            if not unused or (len(unused) == 1 and data[-1] != 0xFF):
                return text
    return _decode_by_rows(data)


def _decode_by_rows(data: bytes) -> bytes:
    while True:
        row = _ROOT
        pieces: list[bytes] = []
        append = pieces.append
        try:
            for byte in data:
                row, piece = row[byte]  # type: ignore[misc]
                append(piece)
        except IndexError:
            _fill(row)
        except TypeError:
            raise ValueError("EOS in a Huffman text") from None
        else:
            if id(row) not in _ENDS:
                raise ValueError("wrong padding of a Huffman text")
            return b"".join(pieces)


def encode(text: bytes) -> bytes:
    """``text`` coded, padded with ones to whole bytes."""
    bits = "".join([_CODES[byte] for byte in text])
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big") if bits else b""
