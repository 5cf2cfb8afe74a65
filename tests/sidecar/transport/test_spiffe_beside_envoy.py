"""SPIFFE validation with real Envoy and with ours: the same peers are let in on both sides, with the same words and counters."""

from __future__ import annotations

import base64
import json
import ssl
from pathlib import Path
from typing import Any

from cryptography import x509

from sidecar.config.tls import DOWNSTREAM_TLS, parse_downstream_tls_context
from tests.sidecar.config.building import build
from tests.sidecar.transport.certificates import Authority, Certificate
from tests.sidecar.transport.serving import SERVER, Document, in_thread, run, serving
from tests.sidecar.transport.test_against_envoy import (
    COUNTERS,
    Client,
    cluster,
    context,
    echoing,
    envoy,
    get,
    listener,
    listening,
    visit,
    wait_for_lines,
)

VALIDATOR = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"
EAST, WEST, NOBODY = Authority("East"), Authority("West"), Authority("Nobody")
TWIN = Authority("East")
"""Another root with the same name, as a mesh has that makes its root anew."""
BETWEEN = Authority("East Intermediate", EAST)
ID = "spiffe://east/ns/shop/sa/page"
SIGNS = x509.KeyUsage(True, False, False, False, False, True, False, False, False)
LISTS = x509.KeyUsage(True, False, False, False, False, False, True, False, False)
USAGE = x509.KeyUsage(True, False, False, False, False, False, False, False, False)


def svid(authority: Authority, name: str, *names: str, usage: x509.KeyUsage | None = USAGE, **how: Any) -> Certificate:
    """A certificate with key usage, as X509-SVIDs have."""
    return authority.issue(name, names, usage=usage, **how)


REVOKED = svid(EAST, "revoked", ID)


def spiffe(domains: dict[str, bytes] | None = None, **fields: Any) -> Document:
    """A validation context with a bundle in PEM for each trust domain."""
    domains = {"east": EAST.pem, "west": WEST.pem} if domains is None else domains
    listed = [{"name": name, "trust_bundle": {"inline_string": pem.decode()}} for name, pem in domains.items()]
    typed = {"@type": VALIDATOR, "trust_domains": listed}
    return {"custom_validator_config": {"name": "envoy.tls.cert_validator.spiffe", "typed_config": typed}, **fields}


def bundle_map(**domains: Authority) -> str:
    """The JSON form."""
    keys = {
        name: {"keys": [{"kty": "EC", "use": "x509-svid", "x5c": [_x5c(authority)]}]}
        for name, authority in domains.items()
    }
    return json.dumps({"trust_domains": keys})


def _x5c(authority: Authority) -> str:
    return base64.b64encode(ssl.PEM_cert_to_DER_cert(authority.pem.decode())).decode()


def mapped(source: Document, **fields: Any) -> Document:
    """A validation context with this file or text of the JSON form."""
    typed = {"@type": VALIDATOR, "trust_bundles": source}
    return {"custom_validator_config": {"name": "envoy.tls.cert_validator.spiffe", "typed_config": typed}, **fields}


def matching(kind: str, **matcher: str) -> Document:
    return {"match_typed_subject_alt_names": [{"san_type": kind, "matcher": matcher}]}


CONTEXTS: dict[str, Document] = {
    "two": spiffe(),
    "one": spiffe({"east": EAST.pem}),
    "rotating": spiffe({"east": EAST.pem + TWIN.pem, "west": WEST.pem}),
    "swapped": spiffe({"east": WEST.pem, "west": EAST.pem}),
    "matched": spiffe(**matching("URI", prefix="spiffe://east/ns/shop/")),
    "lenient": spiffe(allow_expired_certificate=True),
    "revoking": spiffe({"east": EAST.pem + EAST.revoke(REVOKED), "west": WEST.pem}),
    "revoking alone": spiffe({"east": EAST.pem + EAST.revoke(REVOKED)}),
    "half revoking": spiffe({"east": EAST.pem + NOBODY.pem + EAST.revoke(REVOKED), "west": WEST.pem}),
    "intermediate": spiffe({"east": BETWEEN.pem, "west": WEST.pem}),
    "mapped": mapped({"inline_string": bundle_map(east=EAST, west=WEST)}),
}
CERTIFICATES: dict[str, Certificate | None] = {
    "none": None,
    "good": svid(EAST, "good", ID),
    "with a DNS name first": svid(EAST, "good", "page.shop", ID),
    "under an intermediate": svid(BETWEEN, "below", ID),
    "of the other domain": svid(WEST, "page", "spiffe://west/ns/shop/sa/page"),
    "of the twin": svid(TWIN, "twin", ID),
    "west's root for east": svid(WEST, "impostor", ID),
    "east's root for west": svid(EAST, "impostor", "spiffe://west/ns/shop/sa/page"),
    "of an unknown root": svid(NOBODY, "stranger", ID),
    "of an unknown domain": svid(EAST, "south", "spiffe://south/ns/shop/sa/page"),
    "without a name": svid(EAST, "nameless"),
    "with a DNS name only": svid(EAST, "named", "page.shop"),
    "with an https URI": svid(EAST, "web", "https://east/ns/shop/sa/page"),
    "of the domain itself": svid(EAST, "domain", "spiffe://east"),
    "expired": svid(EAST, "expired", ID, days=(-3, -1)),
    "not yet valid": svid(EAST, "early", ID, days=(1, 3)),
    "revoked": REVOKED,
    "that may sign": svid(EAST, "signer", ID, usage=SIGNS),
    "that may revoke": svid(EAST, "lister", ID, usage=LISTS),
    "without key usage": svid(EAST, "unused", ID, usage=None),
    "of another workload": svid(EAST, "other", "spiffe://east/ns/other/sa/page"),
}
OURS_STRICTER = {
    "with two URIs": svid(EAST, "double", ID, "spiffe://east/admin"),
    "with a query": svid(EAST, "query", f"{ID}?admin"),
    "with an empty segment": svid(EAST, "empty", "spiffe://east/ns//page"),
    "with a dot segment": svid(EAST, "dots", "spiffe://east/ns/../page"),
    "with an end in a slash": svid(EAST, "slash", "spiffe://east/ns/"),
}
"""What Envoy lets in, for it looks no further than to the end of the trust domain."""

BY_THE_HANDSHAKE = "X509_verify_cert:_certificate_verification_error_at_depth_0:_"
"""What ours says where no root at all is found: the handshake ends then before it is looked at who comes."""


def test_servers_let_in_the_same_clients(tmp_path: Path) -> None:
    async def test() -> None:
        behind = await echoing()
        documents = {name: context(SERVER, validation=validation) for name, validation in CONTEXTS.items()}
        listeners = [listener(name, tls, tmp_path / f"{name}.log") for name, tls in documents.items()]
        resources = {"listeners": listeners, "clusters": [cluster("echo", behind.sockets[0].getsockname()[1])]}
        different: list[tuple[object, ...]] = []
        let_in = 0
        with envoy({"static_resources": resources}, tmp_path) as admin:
            ports = listening(admin)
            for name, tls in documents.items():
                async with serving(build(DOWNSTREAM_TLS, tls, parse_downstream_tls_context)) as server:
                    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                        for what, certificate in CERTIFICATES.items():
                            client = Client(certificate, version=version)
                            theirs = await in_thread(visit, ports[name], client, tmp_path)
                            ours = await in_thread(visit, server.port, client, tmp_path)
                            let_in += ours.accepted
                            if theirs[:3] != ours[:3]:
                                different.append((name, what, theirs, ours))
                    count = 2 * len(CERTIFICATES)
                    await server.until(lambda server=server, count=count: len(server.connections) == count)  # type: ignore[misc]
                    reasons = await in_thread(wait_for_lines, tmp_path / f"{name}.log", count)
                    our_reasons = [reason.replace(" ", "_") or "-" for reason in server.reasons]
                    for what, their_reason, our_reason in zip([*CERTIFICATES] * 2, reasons, our_reasons, strict=True):
                        by_the_handshake = BY_THE_HANDSHAKE in our_reason and "revocation" not in our_reason
                        if by_the_handshake and "CERTIFICATE_VERIFY_FAILED:verify_cert_failed" in their_reason:
                            continue
                        if their_reason != our_reason:
                            different.append((name, what, their_reason, our_reason))
                    text = await in_thread(get, admin, f"/stats?filter=listener.{name.replace(' ', '.')}.ssl")
                    counted = dict(line.split(": ") for line in text.splitlines())
                    for counter in COUNTERS:
                        theirs_counted = int(counted.get(f"listener.{name}.ssl.{counter}", 0))
                        if theirs_counted != getattr(server.stats, counter):
                            different.append((name, counter, theirs_counted, getattr(server.stats, counter)))
        behind.close()
        assert let_in > len(CONTEXTS)
        assert different == [], "\n".join(map(str, different))

    run(test())
