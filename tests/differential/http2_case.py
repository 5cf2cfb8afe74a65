"""Tables of cases whose clients speak HTTP/2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.differential.blocks import HTTP2_OPTIONS, Message, Site, cluster
from tests.differential.case import Send, Step, Table
from tests.differential.http2_client import opened, streams_of
from tests.differential.http2_frames import FieldLine, headers, request


def http2_options(common: Message | None = None, **fields: Any) -> Message:
    """What makes a cluster speak HTTP/2: its ``typed_extension_protocol_options``."""
    options = {"@type": HTTP2_OPTIONS, "explicit_http_config": {"http2_protocol_options": fields}}
    if common:
        options["common_http_protocol_options"] = common
    return {"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}}


def http2_cluster(
    site: Site,
    name: str,
    upstream: str = "a",
    *,
    options: Message | None = None,
    common: Message | None = None,
    **fields: Any,
) -> Message:
    """A cluster of one upstream which is spoken to in HTTP/2."""
    return cluster(site, name, [upstream], **http2_options(common, **(options or {})), **fields)


class Http2Table(Table):
    """Every connection opens with the preface and empty SETTINGS unless its first bytes are a preface themselves."""

    def frames(
        self, name: str, *steps: Step | bytes, streams: Mapping[int, tuple[int, ...]] | None = None, **options: Any
    ) -> None:
        """Add a case from frames; by default every stream that they open is awaited. The options are those of `add`."""
        sent = opened([Send(step) if isinstance(step, bytes) else step for step in steps])
        self.add(name, *sent, methods={}, streams=streams_of(sent) if streams is None else streams, **options)

    def ask(
        self,
        name: str,
        path: str | None = "/",
        fields: Sequence[FieldLine] = (),
        *,
        method: str = "GET",
        authority: str | None = "a.test",
        scheme: str | None = "http",
        body: bytes | None = None,
        trailers: Sequence[FieldLine] | None = None,
        **options: Any,
    ) -> None:
        """Add a case of one request on stream 1; the options are those of `add`."""
        given = request(1, method, path, fields, authority=authority, scheme=scheme, body=body, trailers=trailers)
        self.frames(name, given, **options)

    def head(self, name: str, fields: Sequence[FieldLine], *, end: bool = True, **options: Any) -> None:
        """Add a case of one request whose head is exactly these fields; the options are those of `add`."""
        self.frames(name, headers(1, fields, end=end), **options)
