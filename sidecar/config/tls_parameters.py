"""What a TLS handshake may agree on: `envoy.extensions.transport_sockets.tls.v3.TlsParameters`."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sidecar.config.fields import Node

DEFAULT_CIPHER_SUITES: Final = (
    "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]",
    "[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
)
"""Envoy's defaults for both sides; a group in brackets is of equal rank."""

VERSIONS: Final = ("TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3")

_CURVES: Final = {"X25519": "X25519", "P-256": "prime256v1", "P-384": "secp384r1", "P-521": "secp521r1"}
_IN_TLS_1_3 = "TLS_"


@dataclass(frozen=True, slots=True)
class TlsParameters:
    """The versions (of `VERSIONS`, both included), the cipher suites of TLS 1.0 to 1.2 as OpenSSL names them, best
    first, and the curve as OpenSSL names it, empty for the library's own choice.

    `equal_preference` says that some suites were of equal rank: then the client's wish decides between AES and ChaCha20.
    """

    tls_minimum_protocol_version: str = "TLSv1_2"
    tls_maximum_protocol_version: str = "TLSv1_3"
    cipher_suites: tuple[str, ...] = ()
    equal_preference: bool = True
    ecdh_curve: str = ""
    ecdh_curve_name: str = ""


def parse_tls_parameters(node: Node | None, *, upstream: bool) -> TlsParameters:
    """`TlsParameters`; as Envoy, what is not set is TLS 1.2 to 1.3 for servers, and only 1.2 for clients."""
    default = UPSTREAM_TLS_PARAMETERS if upstream else DOWNSTREAM_TLS_PARAMETERS
    if node is None:
        return default
    lowest = _version(node, "tls_minimum_protocol_version", default.tls_minimum_protocol_version)
    highest = _version(node, "tls_maximum_protocol_version", default.tls_maximum_protocol_version)
    if VERSIONS.index(lowest) > VERSIONS.index(highest):
        node.refuse(
            f"{highest} is below the minimum, {lowest}", "tls_maximum_protocol_version", "raise it, or lower the other"
        )
    configured = node.get("cipher_suites")
    suites = flat_suites(configured or DEFAULT_CIPHER_SUITES)
    if configured:
        _check_suites(node, suites)
    curves = node.get("ecdh_curves")
    curve = ""
    for name in curves:
        if name not in _CURVES:
            node.refuse(f"{name!r} is no curve that Mizzen knows", "ecdh_curves", f"use one of {', '.join(_CURVES)}")
    if len(curves) > 1:
        node.refuse(
            "names several curves, and Python's ssl module takes one", "ecdh_curves", "name one, or remove the list"
        )
    elif curves:
        curve = _CURVES.get(curves[0], "")
    return TlsParameters(
        lowest, highest, suites, any("|" in one for one in configured or DEFAULT_CIPHER_SUITES), curve,
        curves[0] if curve else "",
    )  # fmt: skip


def flat_suites(suites: tuple[str, ...]) -> tuple[str, ...]:
    """BoringSSL's lists with groups in brackets as one list of names."""
    flat: list[str] = []
    for suite in suites:
        flat += [name for part in suite.split(":") for name in part.strip("[]").split("|") if name]
    return tuple(flat)


def _version(node: Node, field: str, default: str) -> str:
    name = node.enum(field)
    return default if name == "TLS_AUTO" else name


def _check_suites(node: Node, suites: tuple[str, ...]) -> None:
    for suite in suites:
        if suite.startswith(_IN_TLS_1_3):
            node.refuse(
                f"{suite} is a suite of TLS 1.3, which cannot be chosen", "cipher_suites", "name those of TLS 1.2 only"
            )
        elif not _is_suite(suite):
            node.refuse(f"{suite!r} is not known to {ssl.OPENSSL_VERSION}", "cipher_suites", "correct or remove it")


@lru_cache(maxsize=256)
def _is_suite(suite: str) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if suite[:1] in "!-+@" or not suite.replace("-", "").replace("_", "").isalnum():
        return False
    try:
        context.set_ciphers(f"{suite}:@SECLEVEL=0")
    except ssl.SSLError:
        return False
    return True


DOWNSTREAM_TLS_PARAMETERS: Final = TlsParameters(cipher_suites=flat_suites(DEFAULT_CIPHER_SUITES))
UPSTREAM_TLS_PARAMETERS: Final = TlsParameters(
    tls_maximum_protocol_version="TLSv1_2", cipher_suites=flat_suites(DEFAULT_CIPHER_SUITES)
)
