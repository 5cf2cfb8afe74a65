"""TLS contexts, secrets and parameters: defaults, every field, and what is refused, by name and place."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.config_source import ADS, ConfigSource
from sidecar.config.fields import Node
from sidecar.config.matcher import StringMatcher
from sidecar.config.tls import (
    DOWNSTREAM_TLS,
    UPSTREAM_TLS,
    CommonTlsContext,
    DownstreamTlsContext,
    UpstreamTlsContext,
    parse_downstream_tls_context,
    parse_downstream_transport_socket,
    parse_upstream_tls_context,
    parse_upstream_transport_socket,
)
from sidecar.config.tls_parameters import DOWNSTREAM_TLS_PARAMETERS, UPSTREAM_TLS_PARAMETERS, TlsParameters
from sidecar.config.tls_secret_file import load_certificate_secret, load_secrets, load_validation_secret
from sidecar.config.tls_secrets import (
    CertificateValidationContext,
    DataSource,
    Secret,
    SecretReference,
    SubjectAltNameMatcher,
    TlsCertificate,
    parse_static_secret,
)
from tests.sidecar.config.building import build, build_with_warnings, problems

Document = dict[str, Any]

SECRET = "envoy.extensions.transport_sockets.tls.v3.Secret"
CERTIFICATE: Document = {"certificate_chain": {"filename": "/c.pem"}, "private_key": {"filename": "/k.pem"}}
BUILT = TlsCertificate(DataSource("/c.pem"), DataSource("/k.pem"))
ROOTS: Document = {"trusted_ca": {"inline_string": "roots"}}
PEM: Document = {"inline_string": "pem"}
DOMAINS = "custom_validator_config.typed_config.trust_domains"
BUNDLES = "custom_validator_config.typed_config.trust_bundles"
REFERENCES = ("TLS certificate secret", "validation context secret")


def spiffe(*domains: Document, name: str = "envoy.tls.cert_validator.spiffe", **fields: Any) -> Document:
    """A validation context with the validator for SPIFFE."""
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"
    typed = {"@type": kind, "trust_domains": list(domains), **fields}
    return {"custom_validator_config": {"name": name, "typed_config": typed}}


def downstream(common: Document | None = None, **fields: Any) -> DownstreamTlsContext:
    return build(DOWNSTREAM_TLS, _downstream(common, **fields), parse_downstream_tls_context)


def upstream(common: Document | None = None, **fields: Any) -> UpstreamTlsContext:
    return build(UPSTREAM_TLS, {"common_tls_context": common or {}, **fields}, parse_upstream_tls_context)


def _downstream(common: Document | None = None, **fields: Any) -> Document:
    return {"common_tls_context": {"tls_certificates": [CERTIFICATE], **(common or {})}, **fields}


def refused_downstream(common: Document | None = None, **fields: Any) -> list[tuple[str, str]]:
    return problems(DOWNSTREAM_TLS, _downstream(common, **fields), parse_downstream_tls_context)


def refused_upstream(common: Document | None = None, **fields: Any) -> list[tuple[str, str]]:
    return problems(UPSTREAM_TLS, {"common_tls_context": common or {}, **fields}, parse_upstream_tls_context)


def validation(**fields: Any) -> CertificateValidationContext:
    built = upstream({"validation_context": {**ROOTS, **fields}}).common_tls_context.validation_context
    assert isinstance(built, CertificateValidationContext)
    return built


def test_a_server_with_little_has_the_defaults_of_envoy() -> None:
    built = downstream()
    assert built == DownstreamTlsContext(CommonTlsContext(DOWNSTREAM_TLS_PARAMETERS, (BUILT,)))
    assert built.common_tls_context.tls_params.tls_minimum_protocol_version == "TLSv1_2"
    assert built.common_tls_context.tls_params.tls_maximum_protocol_version == "TLSv1_3"
    assert built.stateless_resumption and not built.require_client_certificate and not built.require_sni


def test_a_client_with_nothing_has_the_defaults_of_envoy() -> None:
    for built in (build(UPSTREAM_TLS, {}, parse_upstream_tls_context), upstream()):
        assert built == UpstreamTlsContext(CommonTlsContext(UPSTREAM_TLS_PARAMETERS))
        assert built.common_tls_context.tls_params.tls_maximum_protocol_version == "TLSv1_2"
        assert built.max_session_keys == 1
    assert UPSTREAM_TLS_PARAMETERS.cipher_suites == (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
    )


def test_every_field_of_a_server() -> None:
    built = downstream(
        {"alpn_protocols": ["h2,http/1.1", "x"], "validation_context": ROOTS},
        require_client_certificate=True,
        require_sni=True,
        disable_stateless_session_resumption=True,
        session_timeout="7200s",
        full_scan_certs_on_sni_mismatch=True,
        prefer_client_ciphers=True,
    )
    roots = CertificateValidationContext(DataSource(inline=b"roots"))
    common = CommonTlsContext(DOWNSTREAM_TLS_PARAMETERS, (BUILT,), roots, None, ("h2", "http/1.1", "x"))
    assert built == DownstreamTlsContext(common, True, True, False, True, True)


def test_every_field_of_a_client() -> None:
    built = upstream(
        {"validation_context": ROOTS},
        sni="a.example",
        auto_host_sni=True,
        auto_sni_san_validation=True,
        max_session_keys=5,
        enforce_rsa_key_usage=True,
    )
    roots = CertificateValidationContext(DataSource(inline=b"roots"))
    common = CommonTlsContext(UPSTREAM_TLS_PARAMETERS, (), roots)
    assert built == UpstreamTlsContext(common, "a.example", True, True, 5, True)


def test_parameters() -> None:
    parameters = {
        "tls_minimum_protocol_version": "TLSv1_1",
        "tls_maximum_protocol_version": "TLSv1_2",
        "cipher_suites": ["[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]", "AES128-SHA"],
        "ecdh_curves": ["P-256"],
    }
    suites = ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305", "AES128-SHA")
    assert downstream({"tls_params": parameters}).common_tls_context.tls_params == TlsParameters(
        "TLSv1_1", "TLSv1_2", suites, True, "prime256v1", "P-256"
    )
    assert upstream({"tls_params": {"cipher_suites": ["AES128-SHA"]}}).common_tls_context.tls_params == TlsParameters(
        "TLSv1_2", "TLSv1_2", ("AES128-SHA",), False
    )


@pytest.mark.parametrize(
    ("parameters", "field", "words"),
    [
        ({"cipher_suites": ["TLS_AES_128_GCM_SHA256"]}, "cipher_suites", "a suite of TLS 1.3"),
        ({"cipher_suites": ["NONSENSE"]}, "cipher_suites", "'NONSENSE' is not known to OpenSSL"),
        ({"cipher_suites": ["!aNULL"]}, "cipher_suites", "'!aNULL' is not known"),
        ({"ecdh_curves": ["P-224"]}, "ecdh_curves", "'P-224' is no curve"),
        ({"ecdh_curves": ["X25519", "P-256"]}, "ecdh_curves", "names several curves"),
        ({"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_2"},
         "tls_maximum_protocol_version", "TLSv1_2 is below the minimum, TLSv1_3"),
        ({"signature_algorithms": ["rsa_pss_rsae_sha256"]}, "signature_algorithms", "is not implemented by Mizzen"),
        ({"compliance_policies": ["FIPS_202205"]}, "compliance_policies", "is not implemented by Mizzen"),
    ],
)  # fmt: skip
def test_parameters_that_are_refused(parameters: Document, field: str, words: str) -> None:
    [(path, problem)] = refused_downstream({"tls_params": parameters})
    assert path == f"common_tls_context.tls_params.{field}"
    assert words in problem


def test_where_secrets_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "from the environment")
    certificate = {
        "certificate_chain": {"inline_bytes": base64.b64encode(b"chain").decode()},
        "private_key": {"environment_variable": "THE_KEY"},
        "password": {"filename": "/password", "watched_directory": {"path": "/own"}},
        "watched_directory": {"path": "/all"},
    }
    [built] = upstream({"tls_certificates": [certificate]}).common_tls_context.tls_certificates
    assert built == TlsCertificate(
        DataSource(inline=b"chain"),
        DataSource(inline=b"from the environment"),
        None,
        DataSource("/password", watched_directory="/own"),
    )
    assert isinstance(built, TlsCertificate) and len(built.sources) == 3
    [bundle] = upstream({"tls_certificates": [{"pkcs12": {"filename": "/p12"}}]}).common_tls_context.tls_certificates
    assert bundle == TlsCertificate(pkcs12=DataSource("/p12"))


def test_inline_secrets_do_not_show_in_what_is_printed() -> None:
    assert "hidden" not in repr(DataSource(inline=b"hidden"))


def test_a_data_source_reads_its_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    assert DataSource(str(path)).read() == b"content"
    assert DataSource(inline=b"inline").read() == b"inline"
    with pytest.raises(OSError):
        DataSource(str(tmp_path / "none")).read()


@pytest.mark.parametrize(
    ("certificate", "field", "words"),
    [
        ({"certificate_chain": {"filename": "/c"}}, "private_key", "is required"),
        ({"private_key": {"filename": "/c"}}, "certificate_chain", "is required"),
        ({**CERTIFICATE, "pkcs12": {"filename": "/p"}}, "certificate_chain", "is set together with pkcs12"),
        ({**CERTIFICATE, "private_key": {"environment_variable": "NOT_SET_AT_ALL"}},
         "private_key.environment_variable", "NOT_SET_AT_ALL, which is not set"),
        ({**CERTIFICATE, "ocsp_staple": {"filename": "/o"}}, "ocsp_staple", "is not implemented by Mizzen"),
        ({**CERTIFICATE, "signed_certificate_timestamp": [{"filename": "/o"}]}, "signed_certificate_timestamp",
         "is not implemented by Mizzen"),
        ({"certificate_chain": {"filename": "/c"}, "private_key_provider": {"provider_name": "hsm"}},
         "private_key_provider", "is not implemented by Mizzen"),
    ],
)  # fmt: skip
def test_certificates_that_are_refused(certificate: Document, field: str, words: str) -> None:
    found = refused_upstream({"tls_certificates": [certificate]})
    assert any(path == f"common_tls_context.tls_certificates[0].{field}" and words in text for path, text in found)


def test_every_field_of_a_validation_context() -> None:
    digest = base64.b64encode(b"s" * 32).decode()
    built = validation(
        crl={"filename": "/crl"},
        only_verify_leaf_cert_crl=True,
        watched_directory={"path": "/roots"},
        verify_certificate_hash=["AB" * 32, ":".join(["cd"] * 32)],
        verify_certificate_spki=[digest],
        match_typed_subject_alt_names=[
            {"san_type": kind, "matcher": {"exact": "x"}} for kind in ("EMAIL", "DNS", "URI", "IP_ADDRESS")
        ],
        allow_expired_certificate=True,
        trust_chain_verification="ACCEPT_UNTRUSTED",
    )
    assert built == CertificateValidationContext(
        DataSource(inline=b"roots"),
        False,
        DataSource("/crl", watched_directory="/roots"),
        True,
        frozenset({b"s" * 32}),
        frozenset({"ab" * 32, "cd" * 32}),
        tuple(
            SubjectAltNameMatcher(kind, StringMatcher("exact", b"x")) for kind in ("EMAIL", "DNS", "URI", "IP_ADDRESS")
        ),
        True,
        "ACCEPT_UNTRUSTED",
    )
    assert built.trusts and len(built.sources) == 2


def test_the_systems_roots_and_untyped_names() -> None:
    common = {"validation_context": {"system_root_certs": {}, "match_subject_alt_names": [{"suffix": ".x"}]}}
    built = upstream(common).common_tls_context.validation_context
    assert built == CertificateValidationContext(
        system_root_certs=True,
        match_typed_subject_alt_names=(SubjectAltNameMatcher("", StringMatcher("suffix", b".x")),),
    )


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "x"}}]},
         "match_typed_subject_alt_names", "needs trusted_ca"),
        ({"match_subject_alt_names": [{"exact": "x"}]}, "match_subject_alt_names", "needs trusted_ca"),
        ({"crl": {"filename": "/crl"}}, "crl", "needs trusted_ca"),
        ({**ROOTS, "system_root_certs": {}}, "system_root_certs", "is set together with trusted_ca"),
        ({**ROOTS, "verify_certificate_hash": ["zz" * 32]}, "verify_certificate_hash", "is no SHA-256 digest"),
        ({**ROOTS, "verify_certificate_spki": ["A" * 44]}, "verify_certificate_spki", "is no SHA-256 digest"),
        ({**ROOTS, "match_typed_subject_alt_names": [
            {"san_type": "OTHER_NAME", "oid": "1.2", "matcher": {"exact": "x"}}]},
         "match_typed_subject_alt_names[0].san_type", "OTHER_NAME is not implemented"),
        ({**ROOTS, "require_signed_certificate_timestamp": True}, "require_signed_certificate_timestamp", ""),
        ({**ROOTS, "max_verify_depth": 3}, "max_verify_depth", "is not implemented by Mizzen"),
        ({"custom_validator_config": {
            "name": "envoy.tls.cert_validator.spiffe",
            "typed_config": {"@type": "type.googleapis.com/google.protobuf.Struct"}}},
         "custom_validator_config.typed_config", "Struct is not implemented by Mizzen"),
        (spiffe({"name": "td", "trust_bundle": PEM}, name="spiffe"), "custom_validator_config.name", "is no certificate"),
        (spiffe({"name": "TD", "trust_bundle": PEM}), f"{DOMAINS}[0].name", "'TD' is no trust domain"),
        (spiffe({"name": "a/b", "trust_bundle": PEM}), f"{DOMAINS}[0].name", "'a/b' is no trust domain"),
        (spiffe({"name": "td", "trust_bundle": PEM}, {"name": "td", "trust_bundle": PEM}), f"{DOMAINS}[1].name", "second"),
        (spiffe({"name": "td"}), f"{DOMAINS}[0].trust_bundle", "is required"),
        (spiffe(), DOMAINS, "names no trust domain"),
        (spiffe({"name": "td", "trust_bundle": PEM}, trust_bundles=PEM), BUNDLES, "is set together with trust_domains"),
        ({**spiffe(trust_bundles=PEM), "verify_certificate_hash": ["00" * 32]}, "verify_certificate_hash", "not looked at"),
        ({**spiffe(trust_bundles=PEM), "trust_chain_verification": "ACCEPT_UNTRUSTED"}, "trust_chain_verification", ""),
        ({**spiffe(trust_bundles=PEM), "match_typed_subject_alt_names": [
            {"san_type": "DNS", "matcher": {"exact": "x"}}]},
         "match_typed_subject_alt_names[0].san_type", "only the URI is looked at"),
    ],
)  # fmt: skip
def test_validation_contexts_that_are_refused(fields: Document, field: str, words: str) -> None:
    found = refused_upstream({"validation_context": fields})
    assert any(path == f"common_tls_context.validation_context.{field}" and words in text for path, text in found), (
        found
    )


@pytest.mark.parametrize(
    ("common", "fields", "path", "words"),
    [
        ({"tls_certificates": []}, {}, "common_tls_context.tls_certificates", "has no certificate"),
        ({"validation_context": {"trust_chain_verification": "ACCEPT_UNTRUSTED"}}, {},
         "common_tls_context.validation_context.trust_chain_verification", "ACCEPT_UNTRUSTED is not implemented"),
        ({"validation_context": {"verify_certificate_hash": ["ab" * 32]}}, {},
         "common_tls_context.validation_context", "by digest alone"),
        ({}, {"disable_stateful_session_resumption": True}, "disable_stateful_session_resumption", "by number"),
        ({}, {"session_timeout": "60s"}, "session_timeout", "another session timeout"),
        ({}, {"ocsp_staple_policy": "MUST_STAPLE"}, "ocsp_staple_policy", "MUST_STAPLE is not implemented"),
        ({}, {"session_ticket_keys": {"keys": [{"filename": "/k"}]}}, "session_ticket_keys", "is not implemented"),
        ({"key_log": {"path": "/log"}}, {}, "common_tls_context.key_log", "is not implemented"),
        ({"custom_handshaker": {
            "name": "x", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Struct"}}}, {},
         "common_tls_context.custom_handshaker", "is not implemented"),
        ({"alpn_protocols": ["x" * 256]}, {}, "common_tls_context.alpn_protocols", "more than 255 bytes"),
    ],
)  # fmt: skip
def test_servers_that_are_refused(common: Document, fields: Document, path: str, words: str) -> None:
    found = refused_downstream(common, **fields)
    assert any(place == path and words in text for place, text in found), found


@pytest.mark.parametrize(
    ("common", "fields", "path", "words"),
    [
        ({"tls_certificates": [CERTIFICATE, CERTIFICATE]}, {}, "common_tls_context.tls_certificates", "several"),
        ({}, {"allow_renegotiation": True}, "allow_renegotiation", "renegotiation is not safe"),
        ({}, {"auto_sni_san_validation": True}, "auto_sni_san_validation", "needs a trusted_ca"),
    ],
)
def test_clients_that_are_refused(common: Document, fields: Document, path: str, words: str) -> None:
    found = refused_upstream(common, **fields)
    assert any(place == path and words in text for place, text in found), found


def test_secrets_that_are_discovered() -> None:
    reference = {"name": "default", "sds_config": {"ads": {}, "initial_fetch_timeout": "3s"}}
    common = {"tls_certificates": [], "tls_certificate_sds_secret_configs": [reference]}
    (found,) = downstream(common).common_tls_context.tls_certificates
    assert found == SecretReference("default", source=ConfigSource(ADS, 3.0))
    place = "common_tls_context.tls_certificate_sds_secret_configs[0]"
    nameless = {"tls_certificates": [], "tls_certificate_sds_secret_configs": [{**reference, "name": ""}]}
    assert refused_downstream(nameless)[0][0] == f"{place}.name"
    service = {"google_grpc": {"target_uri": "unix:/sds", "stat_prefix": "sds"}}
    of_google = {**reference, "sds_config": {"api_config_source": {"api_type": "GRPC", "grpc_services": [service]}}}
    refused = refused_downstream({"tls_certificates": [], "tls_certificate_sds_secret_configs": [of_google]})
    assert [path for path, _ in refused] == [f"{place}.sds_config.api_config_source.grpc_services[0].google_grpc"]


def test_references_to_secrets_in_files() -> None:
    def reference(name: str, **fields: Any) -> Document:
        return {"name": name, "sds_config": fields}

    watched = {"path": "/s.yaml", "watched_directory": {"path": "/watched"}}
    common = {
        "tls_certificates": [],
        "tls_certificate_sds_secret_configs": [
            reference("one", path_config_source=watched, resource_api_version="V3"),
            reference("two", path_config_source={"path": "/t.yaml"}),
        ],
        "combined_validation_context": {
            "default_validation_context": {"match_subject_alt_names": [{"exact": "x"}]},
            "validation_context_sds_secret_config": reference("roots", path_config_source={"path": "/r.yaml"}),
        },
    }
    built = downstream(common).common_tls_context
    assert built.tls_certificates == (SecretReference("one", "/s.yaml", "/watched"), SecretReference("two", "/t.yaml"))
    assert built.validation_context == SecretReference("roots", "/r.yaml")
    assert built.default_validation_context == CertificateValidationContext(
        match_typed_subject_alt_names=(SubjectAltNameMatcher("", StringMatcher("exact", b"x")),)
    )
    alone = {"validation_context_sds_secret_config": reference("roots", path_config_source={"path": "/r.yaml"})}
    assert downstream(alone).common_tls_context.validation_context == SecretReference("roots", "/r.yaml")


def test_static_secrets_are_named_and_referred_to() -> None:
    secrets = [{"name": "mine", "tls_certificate": CERTIFICATE}, {"name": "roots", "validation_context": ROOTS}]
    common = {
        "tls_certificates": [],
        "tls_certificate_sds_secret_configs": [{"name": "mine"}],
        "validation_context_sds_secret_config": {"name": "roots"},
    }

    def parse(*present: Document) -> Callable[[Node], DownstreamTlsContext]:
        def parse_both(node: Node) -> DownstreamTlsContext:
            for document in present:
                build(SECRET, document, lambda secret: _declare(secret, node))
            return parse_downstream_tls_context(node)

        return parse_both

    def _declare(secret: Node, node: Node) -> Secret:
        secret.context.declare = node.context.declare  # type: ignore[method-assign]
        return parse_static_secret(secret)

    built = build(DOWNSTREAM_TLS, _downstream(common), parse(*secrets)).common_tls_context
    assert built.tls_certificates == (SecretReference("mine"),)
    assert built.validation_context == SecretReference("roots")
    [(path, problem)] = problems(DOWNSTREAM_TLS, _downstream(common), parse(secrets[0]))
    assert path == "common_tls_context.validation_context_sds_secret_config.name"
    assert problem == "there is no validation context secret called 'roots'"


def test_the_kinds_of_secrets() -> None:
    built = build(SECRET, {"name": "mine", "tls_certificate": CERTIFICATE}, parse_static_secret)
    assert built == Secret("mine", BUILT)
    roots = build(SECRET, {"name": "roots", "validation_context": ROOTS}, parse_static_secret)
    assert roots == Secret("roots", CertificateValidationContext(DataSource(inline=b"roots")))
    assert problems(SECRET, {"name": "x"}, parse_static_secret) == [("", "holds no secret")]
    generic = {"name": "x", "generic_secret": {"secret": {"inline_string": "x"}}}
    assert problems(SECRET, generic, parse_static_secret) == [("generic_secret", "is not implemented by Mizzen")]


def test_secret_files(tmp_path: Path) -> None:
    at_type = f"type.googleapis.com/{SECRET}"
    path = tmp_path / "secrets.json"
    resources = [
        {"@type": at_type, "name": "mine", "tls_certificate": CERTIFICATE},
        {"@type": at_type, "name": "roots", "validation_context": ROOTS},
    ]
    path.write_text(json.dumps({"version_info": "1", "resources": resources}))
    assert [secret.name for secret in load_secrets(str(path))] == ["mine", "roots"]
    assert load_certificate_secret(str(path), "mine") == load_certificate_secret(str(path), "") == BUILT
    assert load_validation_secret(str(path), "roots").trusted_ca == DataSource(inline=b"roots")
    with pytest.raises(ValueError, match="does not hold a TLS certificate called 'roots'; there: 'mine'"):
        load_certificate_secret(str(path), "roots")
    for content, words in (
        ("resources: [", "is not YAML"),
        ("resources: [{'@type': 'type.googleapis.com/envoy.config.cluster.v3.Cluster', name: c}]", "not implemented"),
        (f"resources: [{{'@type': {at_type}, name: it, tls_certificate: {{ocsp_staple: {{filename: /x}}}}}}]",
         "ocsp_staple"),
        ("resources: []", "there: none"),
    ):  # fmt: skip
        (tmp_path / "bad.yaml").write_text(content)
        with pytest.raises(ValueError, match=words):
            load_certificate_secret(str(tmp_path / "bad.yaml"), "it")
    (tmp_path / "bad.pb").write_bytes(b"\xff\xff")
    with pytest.raises(ValueError, match="does not hold a serialised"):
        load_certificate_secret(str(tmp_path / "bad.pb"), "it")
    with pytest.raises(OSError):
        load_certificate_secret(str(tmp_path / "none"), "it")


def test_what_is_ignored_is_said() -> None:
    source = {"path_config_source": {"path": "/s"}, "initial_fetch_timeout": "1s"}
    document = {"common_tls_context": {"tls_certificate_sds_secret_configs": [{"name": "n", "sds_config": source}]}}
    _, warnings = build_with_warnings(UPSTREAM_TLS, document, parse_upstream_tls_context)
    assert len(warnings) == 1 and "initial_fetch_timeout: is ignored: files are read at once" in warnings[0]


def test_transport_sockets() -> None:
    def socket(kind: str, **fields: Any) -> Document:
        typed = {"@type": f"type.googleapis.com/envoy.extensions.transport_sockets.{kind}", **fields}
        return {"name": "c", "transport_socket": {"name": "it", "typed_config": typed}}

    def of_cluster(node: Node) -> UpstreamTlsContext | None:
        return parse_upstream_transport_socket(node) if node.get("name") else None

    def of_chain(node: Node) -> DownstreamTlsContext | None:
        node.get("name")
        return parse_downstream_transport_socket(node)

    chain, cluster = "envoy.config.listener.v3.FilterChain", "envoy.config.cluster.v3.Cluster"
    for plain in ({"name": "c"}, socket("raw_buffer.v3.RawBuffer")):
        assert build(chain, plain, of_chain) is None
        assert build(cluster, plain, of_cluster) is None
    server = build(chain, socket("tls.v3.DownstreamTlsContext", **_downstream()), of_chain)
    assert server == downstream() and server is not None
    assert server.place == "transport_socket.typed_config"
    client = build(cluster, socket("tls.v3.UpstreamTlsContext", sni="a"), of_cluster)
    assert client == upstream(sni="a")
    for kind, parse, fields in (
        (chain, of_chain, socket("tls.v3.UpstreamTlsContext")),
        (cluster, of_cluster, socket("tls.v3.DownstreamTlsContext", **_downstream())),
        (chain, of_chain, socket("quic.v3.QuicDownstreamTransport", downstream_tls_context={})),
    ):
        [(path, problem)] = problems(kind, fields, parse)
        assert path == "transport_socket.typed_config" and "is not implemented by Mizzen" in problem
