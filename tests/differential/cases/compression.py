"""The compressor and decompressor filters; bodies are compared as they were before the coding."""

from __future__ import annotations

import gzip
from typing import Any

import brotli
import zstandard

from tests.differential.blocks import (
    Message,
    Site,
    bootstrap,
    http_filter,
    listener,
    manager,
    per_filter,
    route,
    say,
    to,
)
from tests.differential.case import Header, Table, reply

COMPRESSION = "type.googleapis.com/envoy.extensions.compression"
LIBRARIES = {"gzip": "Gzip", "brotli": "Brotli", "zstd": "Zstd"}


def library(name: str, direction: str, **fields: Any) -> Message:
    """``compressor_library`` or ``decompressor_library``."""
    message = f"{COMPRESSION}.{name}.{direction}.v3.{LIBRARIES[name]}"
    return {f"{direction}_library": {"name": name, "typed_config": {"@type": message, **fields}}}


def compressor(name: str = "gzip", **fields: Any) -> Message:
    return http_filter("compressor", "Compressor", **library(name, "compressor"), **fields)


def decompressor(name: str = "gzip", **fields: Any) -> Message:
    return http_filter("decompressor", "Decompressor", **library(name, "decompressor"), **fields)


def compression(site: Site) -> Message:
    response: Message = {"response_direction_config": {"common_config": {"min_content_length": 50}}}
    listeners = {
        "http": [compressor(**response)],
        "brotli": [compressor("brotli")],
        "zstd": [compressor("zstd")],
        "two": [compressor("gzip"), compressor("brotli")],
        "chosen-first": [compressor("gzip", choose_first=True), compressor("brotli")],
        "types": [compressor(response_direction_config={"common_config": {"content_type": ["text/special"]}})],
        "etags": [compressor(response_direction_config={"disable_on_etag_header": True})],
        "stripped": [compressor(response_direction_config={"remove_accept_encoding_header": True})],
        "codes": [compressor(response_direction_config={"uncompressible_response_codes": [206, 404]})],
        "requests": [
            compressor(
                request_direction_config={"common_config": {"enabled": {"default_value": True, "runtime_key": "r"}}}
            )
        ],
        "decompress": [decompressor()],
        "decompress-brotli": [decompressor("brotli")],
        "decompress-zstd": [decompressor("zstd")],
        "decompress-forced": [decompressor(request_direction_config={"advertise_accept_encoding": False})],
    }
    off = {"typed_per_filter_config": per_filter("compressor", "CompressorPerRoute", disabled=True)}
    routes = [route("/off", to("a"), **off), route("/said", say(200, "said " * 30)), route("/")]
    return bootstrap(
        site, [listener(site, name, manager(site, routes, filters=filters)) for name, filters in listeners.items()]
    )


BOOTSTRAPS = {"compression": compression}

table = Table("compression", "compression")
CASES = table.cases
get = table.get

TEXT = b"compress me, compress me again. " * 10
PLAIN = ("Content-Type", "text/plain")


def text(*headers: Header, status: int = 200, body: bytes = TEXT, chunked: bool = False) -> Any:
    if chunked:
        return reply(status, headers=[PLAIN, *headers], chunks=[body, body])
    return reply(status, body, headers=[PLAIN, *headers])


def accept(coding: str) -> list[Header]:
    return [("Accept-Encoding", coding)]


for _coding in (
    "gzip",
    "identity",
    "br",
    "gzip, br",
    "gzip;q=0",
    "gzip;q=0.5, identity;q=1",
    "*",
    "*;q=0",
    "GZIP",
    "deflate",
    "gzip; q=1.0",
    "",
    "x-gzip",
    "identity;q=0",
):
    get(f"accept-{_coding}", headers=accept(_coding), upstream=text())
get("accept-nothing", upstream=text())
for _coding in ("gzip, br", "br, gzip", "gzip;q=0.5, br;q=0.9", "gzip;q=0.9, br;q=0.5", "*"):
    get(f"two-{_coding}", headers=accept(_coding), listener="two", upstream=text())
    get(f"chosen-first-{_coding}", headers=accept(_coding), listener="chosen-first", upstream=text())
for _listener, _coding in (("brotli", "br"), ("zstd", "zstd")):
    get(_listener, headers=accept(_coding), listener=_listener, upstream=text())
    get(f"{_listener}-chunked", headers=accept(_coding), listener=_listener, upstream=text(chunked=True))
G = accept("gzip")
get("chunked", headers=G, upstream=text(chunked=True))
get("too-short", headers=G, upstream=text(body=b"x" * 49))
get("just-long-enough", headers=G, upstream=text(body=b"x" * 50))
get("large", headers=G, upstream=text(body=TEXT * 500))
get("head", headers=G, method="HEAD", upstream=text())
get("status-404", headers=G, upstream=text(status=404))
get("status-206", headers=G, upstream=text(status=206))
get("status-excluded", headers=G, listener="codes", upstream=text(status=404))
get("already-encoded", headers=G, upstream=text(("Content-Encoding", "br")))
get("encoded-identity", headers=G, upstream=text(("Content-Encoding", "identity")))
get("no-transform", headers=G, upstream=text(("Cache-Control", "no-transform")))
get("etag-strong", headers=G, upstream=text(("ETag", '"x"')))
get("etag-weak", headers=G, upstream=text(("ETag", 'W/"x"')))
get("etag-disables", headers=G, listener="etags", upstream=text(("ETag", '"x"')))
get("vary-given", headers=G, upstream=text(("Vary", "Origin")))
get("vary-has-it", headers=G, upstream=text(("Vary", "Accept-Encoding")))
get("vary-star", headers=G, upstream=text(("Vary", "*")))
get("transfer-encoding-given", headers=G, upstream=text(chunked=True))
for _type in (
    "text/plain",
    "text/html; charset=utf-8",
    "application/json",
    "image/png",
    "image/svg+xml",
    "application/octet-stream",
    "TEXT/PLAIN",
    "application/grpc",
):
    get(f"type-{_type}", headers=G, upstream=reply(body=TEXT, headers=[("Content-Type", _type)]))
get("type-none", headers=G, upstream=reply(body=TEXT))
get(
    "type-configured",
    headers=G,
    listener="types",
    upstream=reply(body=TEXT, headers=[("Content-Type", "text/special")]),
)
get("type-not-configured", headers=G, listener="types", upstream=text())
get("accept-encoding-removed", headers=G, listener="stripped", upstream=text())
get("route-off", "/off", headers=G, upstream=text())
get("direct-response", "/said", headers=G)
get("request-body", method="POST", body=TEXT, headers=[PLAIN], listener="requests")
get("request-body-encoded", method="POST", body=TEXT, headers=[PLAIN, ("Content-Encoding", "br")], listener="requests")

for _listener, _coding, _data in (
    ("decompress", "gzip", gzip.compress(TEXT, mtime=0)),
    ("decompress-brotli", "br", brotli.compress(TEXT)),
    ("decompress-zstd", "zstd", zstandard.ZstdCompressor().compress(TEXT)),
):
    _encoded = [("Content-Encoding", _coding)]
    get(f"{_listener}-request", method="POST", body=_data, headers=_encoded, listener=_listener)
    get(f"{_listener}-response", listener=_listener, upstream=reply(body=_data, headers=_encoded))
    get(
        f"{_listener}-accepting",
        headers=accept("gzip;q=0.5, x"),
        listener=_listener,
        upstream=reply(body=_data, headers=_encoded),
    )
get(
    "decompress-other-coding",
    listener="decompress",
    upstream=reply(body=brotli.compress(TEXT), headers=[("Content-Encoding", "br")]),
)
get(
    "decompress-two-codings",
    listener="decompress",
    upstream=reply(body=b"xx", headers=[("Content-Encoding", "br, gzip")]),
)
get(
    "decompress-broken",
    listener="decompress",
    upstream=reply(body=b"this is not gzip", headers=[("Content-Encoding", "gzip")]),
)
get(
    "decompress-no-transform",
    listener="decompress",
    upstream=reply(
        body=gzip.compress(TEXT, mtime=0), headers=[("Content-Encoding", "gzip"), ("Cache-Control", "no-transform")]
    ),
)
get("decompress-not-advertised", listener="decompress-forced")
