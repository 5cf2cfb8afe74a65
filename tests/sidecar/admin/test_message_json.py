"""Protobuf messages as JSON: protobuf's own printer is the oracle, and secrets do not get out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import any_pb2, json_format, struct_pb2, wrappers_pb2

from sidecar.admin.json_text import json_chunks
from sidecar.admin.message_json import any_members, message_value
from sidecar.bootstrap.load import load_bootstrap
from sidecar.config.extensions import message_class
from tests.sidecar.admin.bootstraps import VARIED

_TLS = "envoy.extensions.transport_sockets.tls.v3."
_SECRET = "swordfish"
_BASE64 = "W3JlZGFjdGVkXQ=="


def _shown(value: Any) -> Any:
    return json.loads(b"".join(json_chunks(value)))


def _message(name: str, fields: dict[str, Any]) -> Any:
    return json_format.ParseDict(fields, message_class(name)())


def _expected(message: Any) -> Any:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def test_a_bootstrap_is_what_protobuf_prints() -> None:
    root, _ = load_bootstrap(VARIED)
    assert _shown(message_value(root.message)) == _expected(root.message)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (
            "envoy.config.cluster.v3.Cluster",
            {
                "name": "c",
                "dns_refresh_rate": "5.000001s",
                "per_connection_buffer_limit_bytes": 7,
                "circuit_breakers": {"thresholds": [{"retry_budget": {"budget_percent": {"value": 12.5}}}]},
                "metadata": {
                    "typed_filter_metadata": {
                        "k": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}
                    }
                },
            },
        ),
        ("envoy.admin.v3.SimpleMetric", {"value": "18446744073709551615", "type": "GAUGE"}),
        ("envoy.config.core.v3.DataSource", {"inline_bytes": "AP8="}),
        ("google.protobuf.Timestamp", "2026-01-02T03:04:05.678Z"),
        ("google.protobuf.ListValue", [1, 1.5, "x", None, {"a": [True]}]),
    ],
)
def test_kinds_of_fields(name: str, fields: Any) -> None:
    message = _message(name, fields)
    assert _shown(message_value(message)) == _expected(message)


def test_32_bit_numbers_are_short() -> None:
    assert _shown(message_value(wrappers_pb2.FloatValue(value=0.1))) == 0.1


def test_an_any_of_an_unknown_type_shows_its_bytes() -> None:
    packed = any_pb2.Any(type_url="type.googleapis.com/nobody.Knows", value=b"\x00\xff")
    assert _shown(message_value(packed)) == {"@type": packed.type_url, "value": "AP8="}


def test_an_any_of_a_wrapper_shows_its_value() -> None:
    packed = any_pb2.Any()
    packed.Pack(wrappers_pb2.StringValue(value="x"))
    assert _shown(message_value(packed)) == {"@type": packed.type_url, "value": "x"}


@pytest.mark.parametrize(
    ("name", "fields", "shown"),
    [
        (f"{_TLS}GenericSecret", {"secret": {"inline_string": _SECRET}}, {"secret": {"inline_string": "[redacted]"}}),
        (f"{_TLS}GenericSecret", {"secret": {"inline_bytes": "c3dvcmRmaXNo"}}, {"secret": {"inline_bytes": _BASE64}}),
        (
            f"{_TLS}TlsCertificate",
            {"certificate_chain": {"inline_string": "public"}, "private_key": {"inline_string": _SECRET}},
            {"certificate_chain": {"inline_string": "public"}, "private_key": {"inline_string": "[redacted]"}},
        ),
        (
            f"{_TLS}TlsSessionTicketKeys",
            {"keys": [{"inline_string": _SECRET}, {"filename": _SECRET}]},
            {"keys": [{"inline_string": "[redacted]"}, {"filename": "[redacted]"}]},
        ),
    ],
)
def test_secrets_are_redacted(name: str, fields: dict[str, Any], shown: dict[str, Any]) -> None:
    assert _shown(message_value(_message(name, fields))) == shown


def test_secrets_inside_an_any_and_a_typed_struct_are_redacted() -> None:
    url = f"type.googleapis.com/{_TLS}TlsCertificate"
    message_class(f"{_TLS}CommonTlsContext")  # json_format knows only what is loaded
    socket = _message(
        "envoy.config.core.v3.TransportSocket",
        {
            "name": "tls",
            "typed_config": {
                "@type": f"type.googleapis.com/{_TLS}CommonTlsContext",
                "tls_certificates": [{"private_key": {"inline_string": _SECRET}}],
            },
        },
    )
    assert _SECRET not in json.dumps(_shown(message_value(socket)))
    for key in ("private_key", "privateKey"):
        fields = struct_pb2.Struct()
        fields.update({key: {"inline_string": _SECRET, "number": 4711}, "certificate_chain": {"filename": "chain"}})
        typed = message_class("xds.type.v3.TypedStruct")(type_url=url, value=fields)
        text = json.dumps(_shown(message_value(typed)))
        assert _SECRET not in text
        assert "4711" not in text
        assert "chain" in text


def test_a_typed_struct_of_a_type_that_is_not_known_is_shown_whole() -> None:
    fields = struct_pb2.Struct()
    fields.update({"a": [1, {"b": "x"}]})
    typed = message_class("xds.type.v3.TypedStruct")(type_url="type.googleapis.com/my.Filter", value=fields)
    assert _shown(message_value(typed)) == {"type_url": typed.type_url, "value": {"a": [1, {"b": "x"}]}}


def test_masked_members() -> None:
    cluster = _message(
        "envoy.config.cluster.v3.Cluster", {"name": "c", "connect_timeout": "1s", "upstream_config": {"name": "u"}}
    )
    shown = _shown(any_members("t", cluster, {"name": {}, "upstream_config": {"typed_config": {}}}))
    assert shown == {"@type": "type.googleapis.com/t", "name": "c", "upstream_config": {}}
