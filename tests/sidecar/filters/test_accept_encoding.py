import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.filters.accept_encoding import Choice, choose_coding

GZIP = Choice(b"gzip", "compressor")
BR = Choice(b"br", "compressor")
IDENTITY = Choice(b"", "identity")
NOT_VALID = Choice(b"", "not_valid")


@pytest.mark.parametrize(
    ("value", "offered", "choice"),
    [
        (b"gzip", [b"gzip"], GZIP),
        (b" gzip ", [b"gzip"], GZIP),
        (b"GZIP", [b"gzip"], NOT_VALID),
        (b"br", [b"gzip"], NOT_VALID),
        (b"br, gzip", [b"gzip"], GZIP),
        (b"br, gzip", [b"gzip", b"br"], BR),
        (b"gzip;q=0.5, br;q=0.9", [b"gzip", b"br"], BR),
        (b"gzip; q=0.9, br;q=0.5", [b"gzip", b"br"], GZIP),
        (b"gzip;q=0", [b"gzip"], NOT_VALID),
        (b"gzip;q=0, *", [b"gzip", b"br"], Choice(b"br", "wildcard")),
        (b"gzip;q=0, *", [b"gzip"], NOT_VALID),
        (b"*", [b"gzip", b"br"], Choice(b"gzip", "wildcard")),
        (b"*;q=0", [b"gzip"], NOT_VALID),
        (b"identity", [b"gzip"], IDENTITY),
        (b"identity;q=0.5, gzip", [b"gzip"], GZIP),
        (b"gzip;q=0.5, identity", [b"gzip"], IDENTITY),
        (b"gzip;q=soon", [b"gzip"], NOT_VALID),
        (b"gzip;q=1_0", [b"gzip"], NOT_VALID),
        (b"gzip;q=nan", [b"gzip"], NOT_VALID),
        (b"gzip;level=9", [b"gzip"], GZIP),
        (b"", [b"gzip"], NOT_VALID),
        (b"gzip", [], NOT_VALID),
    ],
)
def test_choices(value, offered, choice):
    assert choose_coding(value, offered) == choice


@pytest.mark.parametrize(
    ("value", "choice"),
    [(b"br, gzip", GZIP), (b"br;q=1, gzip;q=0.9", BR), (b"br", BR), (b"*", Choice(b"gzip", "wildcard"))],
)
def test_a_preferred_coding_wins_among_equals(value, choice):
    assert choose_coding(value, [b"br", b"gzip"], b"gzip") == choice


@given(st.binary(max_size=60))
def test_whatever_comes_the_choice_is_one_that_was_offered(value):
    assert choose_coding(value, [b"gzip"]).coding in (b"", b"gzip")
