import gzip

import pytest

from sidecar.config.filters.compression import BrotliCompressor, GzipCompressor, ZstdCompressor
from sidecar.config.filters.compressor import Compressor, CompressorPerRoute, DirectionConfig, ResponseDirectionConfig
from sidecar.filters.registry import make_filter, make_route_filter
from sidecar.http.filter_chain import FilterChain
from tests.sidecar.filters.streams import FakeStream, FakeWorker, get, make_context

TEXT = (b"content-type", b"text/plain; charset=utf-8")
LONG = (b"content-length", b"1000")
BODY = b"some text " * 100


class Setting:
    def __init__(self, *configs):
        self.worker = FakeWorker()
        self.context = make_context(self.worker)
        self.filters = [
            make_filter(one, "compressor", self.context) for one in configs or (Compressor(GzipCompressor()),)
        ]
        self.stats = self.filters[0].stats
        self.response_stats = self.filters[0].response_stats

    def ask(self, *fields, accept=b"gzip", body=b"", filters=None, method=b"GET"):
        given = [(b"accept-encoding", accept)] if accept is not None else []
        return FakeStream(self.worker, filters or self.filters, get(b"/", *given, *fields, method=method)).ask(body)

    def get(self, *response, accept=b"gzip", status=200, body=BODY, filters=None):
        return self.ask(accept=accept, filters=filters).answer(status, response or (TEXT, LONG), body)


def response(**fields):
    return Compressor(GzipCompressor(), ResponseDirectionConfig(**fields))


def test_a_response_is_compressed_and_framed_anew():
    setting = Setting()
    stream = setting.get(TEXT, LONG, body=[BODY[:500], BODY[500:]])
    assert gzip.decompress(bytes(stream.got)) == BODY
    assert stream.response.fields == [TEXT, (b"content-encoding", b"gzip"), (b"vary", b"Accept-Encoding")]
    stats = setting.stats
    assert (stats.compressed, stats.not_compressed) == (1, 0)
    assert (stats.total_uncompressed_bytes, stats.total_compressed_bytes) == (1000, len(stream.got))
    assert setting.response_stats.header_compressor_used == 1


def test_each_piece_can_be_read_at_once():
    stream = Setting().ask().answer(200, [TEXT], [b"first", b"second"])
    import zlib

    assert zlib.decompressobj(31).decompress(stream.pieces[0][1]) == b"first"


@pytest.mark.parametrize("accept", [None, b"br", b"identity", b"gzip;q=0", b""])
def test_who_does_not_accept_it_gets_it_plain_and_vary_says_so(accept):
    stream = Setting().get(accept=accept)
    assert stream.got == BODY
    assert stream.response.fields == [TEXT, LONG, (b"vary", b"Accept-Encoding")]


@pytest.mark.parametrize(
    ("accept", "counter"),
    [
        (b"gzip", "header_compressor_used"),
        (b"*", "header_wildcard"),
        (b"identity", "header_identity"),
        (b"x", "header_not_valid"),
        (None, "no_accept_header"),
    ],
)
def test_what_clients_wish_is_counted(accept, counter):
    setting = Setting()
    setting.get(accept=accept)
    counts = {name: getattr(setting.response_stats, name) for name in setting.response_stats.COUNTERS}
    assert counts == {**dict.fromkeys(counts, 0), counter: 1}


@pytest.mark.parametrize(
    ("fields", "vary"),
    [
        ([(b"content-type", b"image/png"), LONG], None),
        ([TEXT, (b"content-length", b"29")], None),
        ([TEXT, LONG, (b"cache-control", b"private, no-transform")], None),
        ([TEXT, LONG, (b"content-encoding", b"br")], None),
        ([TEXT, LONG, (b"transfer-encoding", b"gzip, chunked")], b"Accept-Encoding"),
    ],
)
def test_what_is_not_compressed(fields, vary):
    setting = Setting()
    stream = setting.get(*fields)
    assert stream.got == BODY
    assert stream.response.get(b"vary") == vary
    assert setting.stats.not_compressed == 1


def test_a_response_without_type_or_length_is_compressed():
    assert gzip.decompress(bytes(Setting().get((b"x", b"y"), body=b"short").got)) == b"short"


def test_a_response_without_a_body_is_not():
    stream = Setting().ask().answer(204, [TEXT])
    assert b"content-encoding" not in stream.response.index
    assert stream.response.get(b"vary") == b"Accept-Encoding"


@pytest.mark.parametrize(
    ("vary", "expected"),
    [
        (b"x-a", b"x-a, Accept-Encoding"),
        (b"accept-encoding", b"accept-encoding"),
        (b"x, Accept-Encoding", b"x, Accept-Encoding"),
    ],
)
def test_vary_is_extended(vary, expected):
    assert Setting().get(TEXT, (b"vary", vary)).response.get(b"vary") == expected


@pytest.mark.parametrize(("etag", "kept"), [(b'"a"', None), (b'W/"a"', b'W/"a"'), (b'w/"a"', b'w/"a"')])
def test_strong_etags_do_not_outlive_the_change(etag, kept):
    assert Setting().get(TEXT, (b"etag", etag)).response.get(b"etag") == kept


def test_etags_may_forbid_compression():
    setting = Setting(response(disable_on_etag_header=True))
    stream = setting.get(TEXT, LONG, (b"etag", b'W/"a"'))
    assert stream.got == BODY
    assert setting.response_stats.not_compressed_etag == 1


def test_statuses_may_forbid_compression():
    setting = Setting(response(uncompressible_response_codes=frozenset({404})))
    assert setting.get(status=404).got == BODY
    assert setting.get(status=200).got != BODY


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ([TEXT, LONG], 200, b"gzip;Compressed;OriginalLength=1000"),
        ([TEXT, (b"content-length", b"10")], 200, b"gzip;ContentLengthTooSmall"),
        ([(b"content-type", b"image/png"), LONG], 200, b"gzip;ContentTypeNotAllowed"),
        ([TEXT, LONG, (b"etag", b"x")], 200, b"gzip;EtagNotAllowed"),
        ([TEXT, LONG], 404, b"gzip;StatusCodeNotAllowed"),
        ([TEXT, LONG, (b"cache-control", b"no-transform")], 200, None),
    ],
)
def test_it_may_say_what_it_did(fields, status, said):
    config = response(
        status_header_enabled=True, disable_on_etag_header=True, uncompressible_response_codes=frozenset({404})
    )
    assert Setting(config).get(*fields, status=status).response.get(b"x-envoy-compression-status") == said


def test_the_upstream_need_not_hear_what_the_client_accepts():
    stream = Setting(response(remove_accept_encoding_header=True)).ask()
    assert stream.request.get(b"accept-encoding") is None
    assert gzip.decompress(bytes(stream.answer(200, [TEXT], BODY).got)) == BODY


def test_responses_may_be_left_out():
    setting = Setting(response(common_config=DirectionConfig(enabled=False)))
    stream = setting.get()
    assert stream.got == BODY
    assert b"vary" not in stream.response.index


TWO = (Compressor(GzipCompressor()), Compressor(BrotliCompressor()))


@pytest.mark.parametrize(
    ("configs", "accept", "coding"),
    [
        (TWO, b"gzip, br", b"gzip"),
        (TWO, b"br, gzip", b"br"),
        (TWO, b"gzip;q=0.5, br", b"br"),
        (TWO, b"*", b"gzip"),
        ((TWO[0], Compressor(BrotliCompressor(), choose_first=True)), b"gzip, br", b"br"),
    ],
)
def test_of_several_compressors_one_is_chosen(configs, accept, coding):
    setting = Setting(*configs)
    assert setting.get(accept=accept).response.get(b"content-encoding") == coding


def test_the_one_that_was_not_chosen_counts_that():
    setting = Setting(*TWO)
    setting.get(accept=b"br")
    assert setting.response_stats.header_compressor_overshadowed == 1
    assert setting.filters[1].response_stats.header_compressor_used == 1


REQUESTS = Compressor(GzipCompressor(), request_direction_config=DirectionConfig())


def test_requests_are_compressed_where_configured():
    setting = Setting(REQUESTS)
    stream = setting.ask(TEXT, LONG, body=BODY, method=b"POST")
    assert gzip.decompress(bytes(stream.sent)) == BODY
    assert stream.request.get(b"content-encoding") == b"gzip"
    assert stream.request.get(b"content-length") is None
    stats = setting.filters[0].request_stats
    assert (stats.compressed, stats.total_uncompressed_bytes) == (1, 1000)


@pytest.mark.parametrize(
    "fields",
    [
        [(b"content-type", b"image/png"), LONG],
        [TEXT, (b"content-length", b"10")],
        [TEXT, LONG, (b"content-encoding", b"br")],
        [TEXT, (b"upgrade", b"websocket")],
    ],
)
def test_requests_that_are_not_compressed(fields):
    setting = Setting(REQUESTS)
    assert setting.ask(*fields, body=BODY).sent == BODY
    assert setting.filters[0].request_stats.not_compressed == 1


def test_by_default_requests_have_no_data_hook():
    assert not FilterChain(Setting().filters).request_data


def test_a_route_may_switch_it_off_or_override_it():
    setting = Setting(response(common_config=DirectionConfig(enabled=False)))
    base, config = setting.filters[0], response(common_config=DirectionConfig(enabled=False))
    off = make_route_filter(base, config, CompressorPerRoute(True), setting.context)
    assert FilterChain([off]).plain_response
    own = make_route_filter(
        base, config, CompressorPerRoute(False, True, BrotliCompressor()), setting.context
    )  # fmt: skip
    stream = setting.ask(accept=b"br", filters=[own])
    assert stream.request.get(b"accept-encoding") is None
    assert stream.answer(200, [TEXT], BODY).response.get(b"content-encoding") == b"br"


@pytest.mark.parametrize(
    "library",
    [
        GzipCompressor(9, 9, "RLE", 15),
        BrotliCompressor(11, "TEXT", 24, 16),
        BrotliCompressor(0, "FONT", 10, 24),
        ZstdCompressor(1, True, "BTULTRA2"),
        ZstdCompressor(),
    ],
)
def test_libraries_and_their_settings(library):
    setting = Setting(Compressor(library))
    stream = setting.get(accept=setting.filters[0].coding, body=[BODY, b"", BODY])
    codings = {b"gzip": gzip.decompress, b"br": _brotli, b"zstd": _zstd}
    assert codings[setting.filters[0].coding](bytes(stream.got)) == BODY * 2


def _brotli(data):
    import brotli

    return brotli.decompress(data)


def _zstd(data):
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj().decompress(data)
