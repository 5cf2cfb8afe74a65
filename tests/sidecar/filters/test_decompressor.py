import gzip

import brotli
import pytest
import zstandard

from sidecar.config.filters.compression import BrotliDecompressor, GzipDecompressor, ZstdDecompressor
from sidecar.config.filters.decompressor import Decompressor, DirectionConfig
from sidecar.filters.content_coding import CodingError, compile_decoder
from sidecar.filters.decompressor import add_encoding
from sidecar.filters.registry import make_filter
from tests.sidecar.filters.streams import FakeStream, FakeWorker, get, make_context

BODY = b"some text " * 100
LIBRARIES = [
    (GzipDecompressor(), gzip.compress),
    (BrotliDecompressor(), brotli.compress),
    (ZstdDecompressor(), zstandard.ZstdCompressor().compress),
]
GZIPPED = (b"content-encoding", b"gzip")


class Setting:
    def __init__(self, **config):
        self.worker = FakeWorker()
        self.filter = make_filter(Decompressor(GzipDecompressor(), **config), "decompressor", make_context(self.worker))

    def ask(self, *fields, body=b""):
        return FakeStream(self.worker, [self.filter], get(b"/", *fields)).ask(body)


def decode(library, *pieces):
    decoder = compile_decoder(library)[2]()
    return b"".join(decoder.decode(piece, number == len(pieces) - 1) for number, piece in enumerate(pieces))


@pytest.mark.parametrize(("library", "compress"), LIBRARIES)
def test_bodies_whole_and_byte_by_byte(library, compress):
    data = compress(BODY)
    assert decode(library, data) == BODY
    assert decode(library, *(data[at : at + 1] for at in range(len(data)))) == BODY
    assert decode(library, data, b"") == BODY


@pytest.mark.parametrize(("library", "compress"), LIBRARIES)
def test_bodies_that_are_something_else(library, compress):
    with pytest.raises(CodingError):
        decode(library, b"garbage" * 10)


@pytest.mark.parametrize(("library", "compress"), LIBRARIES)
def test_bodies_that_end_too_early(library, compress):
    with pytest.raises(CodingError):
        decode(library, compress(BODY)[:-4])


@pytest.mark.parametrize(("library", "compress"), LIBRARIES)
def test_bodies_that_inflate_without_end(library, compress):
    with pytest.raises(CodingError, match="inflates more than 100 times"):
        decode(library, compress(bytes(30_000_000)))


@pytest.mark.parametrize(("library", "compress"), LIBRARIES[::2])
def test_several_members_are_one_body(library, compress):
    assert decode(library, compress(b"one") + compress(b"two")) == b"onetwo"


def test_a_request_is_decompressed():
    setting = Setting()
    data = gzip.compress(BODY)
    stream = setting.ask(GZIPPED, (b"content-length", b"%d" % len(data)), body=[data[:20], data[20:]])
    assert stream.sent == BODY
    assert stream.request.fields == [(b"accept-encoding", b"gzip")]
    stats = setting.filter.request_stats
    assert (stats.decompressed, stats.total_compressed_bytes, stats.total_uncompressed_bytes) == (1, len(data), 1000)


def test_a_request_that_cannot_be_is_refused():
    stream = Setting().ask(GZIPPED, body=b"garbage" * 10)
    assert stream.replied[0] == 400
    assert stream.response_code_details == "decompression_failed"


def test_a_response_is_decompressed():
    setting = Setting()
    stream = setting.ask().answer(200, [GZIPPED, (b"content-length", b"9")], gzip.compress(BODY))
    assert stream.got == BODY
    assert stream.response.fields == []
    assert setting.filter.response_stats.decompressed == 1


def test_a_response_that_cannot_be_ends_the_stream():
    stream = Setting().ask().answer(200, [GZIPPED], b"garbage" * 10)
    assert stream.reset_with == "decompression_failed"


def test_only_the_outermost_coding_is_taken_off():
    stream = Setting().ask((b"content-encoding", b"gzip, br"), body=gzip.compress(b"x"))
    assert stream.sent == b"x"
    assert stream.request.get(b"content-encoding") == b"br"


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        ({}, []),
        ({}, [(b"content-encoding", b"br")]),
        ({}, [(b"content-encoding", b"br, gzip")]),
        ({}, [GZIPPED, (b"cache-control", b"no-transform")]),
        ({"request_direction_config": DirectionConfig(False)}, [GZIPPED]),
    ],
)
def test_what_is_left_alone(config, fields):
    setting = Setting(**config)
    assert setting.ask(*fields, body=b"as it is").sent == b"as it is"
    assert setting.filter.request_stats.not_decompressed == 1


def test_no_transform_may_be_overruled():
    setting = Setting(request_direction_config=DirectionConfig(True, True))
    stream = setting.ask(GZIPPED, (b"cache-control", b"no-transform"), body=gzip.compress(b"x"))
    assert stream.sent == b"x"


@pytest.mark.parametrize(
    ("given", "advertised"),
    [
        (None, b"gzip"),
        (b"br", b"br,gzip"),
        (b"br, gzip;q=0.3", b"br,gzip"),
        (b"gzip, br;q=0.5", b"br;q=0.5,gzip"),
    ],
)
def test_what_upstreams_are_told(given, advertised):
    assert add_encoding(given, b"gzip") == advertised
    fields = [] if given is None else [(b"accept-encoding", given)]
    assert Setting().ask(*fields).request.get(b"accept-encoding") == advertised


@pytest.mark.parametrize(
    "config", [{"advertise_accept_encoding": False}, {"response_direction_config": DirectionConfig(False)}]
)
def test_upstreams_need_not_be_told(config):
    assert Setting(**config).ask((b"accept-encoding", b"br")).request.get(b"accept-encoding") == b"br"
