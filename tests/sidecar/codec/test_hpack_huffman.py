"""The Huffman code against the tables of the hpack package, and both ways of decoding against each other."""

from __future__ import annotations

import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from sidecar.codec import hpack_huffman
from sidecar.codec.hpack_huffman import decode, encode

ORACLE = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
TEXTS = st.one_of(
    st.binary(max_size=80),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=120).map(str.encode),
    st.text("<`{\\~^}|0ae\x7f", max_size=60).map(str.encode),
)


@given(TEXTS)
def test_texts_are_coded_as_the_oracle_does_and_come_back(text: bytes) -> None:
    assert encode(text) == ORACLE.encode(text)
    assert decode(encode(text)) == text


@given(TEXTS, st.binary(max_size=3))
def test_zlib_and_the_rows_agree_about_any_bytes(text: bytes, tail: bytes) -> None:
    for data in (encode(text) + tail, encode(text)[:-1] + tail, tail + encode(text)):
        outcomes = []
        for way in (decode, hpack_huffman._decode_by_rows):
            try:
                outcomes.append(way(data))
            except ValueError:
                outcomes.append(None)
        assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x00", id="padding of zeros"),
        pytest.param(b"\x1f\xff", id="more than seven bits of padding"),
        pytest.param(b"\xff", id="nothing but padding"),
        pytest.param(b"\xff\xff\xff\xff", id="EOS"),
        pytest.param(encode(b"a" * 40) + b"\xff", id="a byte of padding behind a long text"),
        pytest.param(encode(b"a" * 40) + b"\xff\xff\xff\xff", id="EOS behind a long text"),
        pytest.param(encode(b"a" * 40) + b"\xff\xff\xff\xfc" + encode(b"a" * 40), id="EOS inside of a long text"),
    ],
)
def test_what_section_5_2_forbids_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode(data)
