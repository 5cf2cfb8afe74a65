"""The certificates in use, as Envoy's administration interface lists them: `envoy.admin.v3.Certificate`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.config.tls_sources import DataSource
from sidecar.config.tls_spiffe import SpiffeValidator
from sidecar.transport.contexts import authority_of, load_certificate
from sidecar.transport.failures import TlsContextError
from sidecar.transport.identity import UNREADABLE, CertificateDetails, details_of
from sidecar.transport.rotation import Rotation, SecretsOf

_INLINE = "<inline>"
_KINDS = (("DNS", "dns"), ("URI", "uri"), ("IP_ADDRESS", "ip_address"))
_DAY = 86400


class Inventory:
    """All certificates that are in use, whatever rotates in."""

    __slots__ = ("_ends", "_rotations")

    def __init__(self) -> None:
        self._rotations: list[Rotation[Any]] = []
        self._ends: dict[Rotation[Any], tuple[SecretsOf, float | None]] = {}

    def add(self, rotation: Rotation[Any]) -> None:
        """One more context."""
        self._rotations.append(rotation)

    def remove(self, rotation: Rotation[Any]) -> None:
        """A context is gone."""
        self._rotations.remove(rotation)
        self._ends.pop(rotation, None)

    def certificates(self, now: float) -> list[dict[str, list[dict[str, Any]]]]:
        """What /certs shows: an entry for each context. ``now`` is in seconds since the epoch."""
        return [certificates_of(rotation.secrets, now) for rotation in self._rotations]

    def days_until_first_end(self, now: float) -> int | None:
        """The days until the first certificate ends; None without any."""
        first: float | None = None
        for rotation in self._rotations:
            known = self._ends.get(rotation)
            if known is None or known[0] is not rotation.secrets:  # read once for each version
                known = self._ends[rotation] = (rotation.secrets, first_end(rotation.secrets))
            end = known[1]
            if end is not None and (first is None or end < first):
                first = end
        return None if first is None else max(0, int((first - now) // _DAY))

    def __repr__(self) -> str:
        return f"<Inventory of {len(self._rotations)} contexts>"


def certificates_of(secrets: SecretsOf, now: float) -> dict[str, list[dict[str, Any]]]:
    """One context's entry: its first trusted authority (with SPIFFE, all of them) and its certificates.

    ``now`` is in seconds since the epoch. Files are read anew; one that can no longer be read is left out.
    """
    authorities: list[dict[str, Any]] = []
    chains: list[dict[str, Any]] = []
    for path, details, trusted in _found(secrets):
        try:
            (authorities if trusted else chains).append(_described(path, details, now))
        except UNREADABLE:
            continue
    return {"ca_cert": authorities, "cert_chain": chains}


def first_end(secrets: SecretsOf) -> float | None:
    """When the first of the context's certificates ends, in seconds since the epoch; None if there are none."""
    ends = []
    for _, details, _trusted in _found(secrets):
        try:
            ends.append(details.valid_until.timestamp())
        except UNREADABLE:
            continue
    return min(ends, default=None)


def _found(secrets: SecretsOf) -> Iterator[tuple[str, CertificateDetails, bool]]:
    """Path, certificate, and whether it is a trusted authority."""
    validation = secrets.validation
    try:
        if validation is not None and validation.spiffe is not None:
            yield from _roots_of(validation.spiffe)
        elif validation is not None and validation.trusted_ca is not None:
            yield _path(validation.trusted_ca), authority_of(validation.trusted_ca), True
    except TlsContextError:
        pass
    for certificate in secrets.certificates:
        try:
            loaded = load_certificate(certificate)
        except TlsContextError:
            continue
        yield _path(certificate.pkcs12 or certificate.certificate_chain), loaded.details, False


def _roots_of(validator: SpiffeValidator) -> Iterator[tuple[str, CertificateDetails, bool]]:
    from sidecar.transport.trust_bundles import load_bundles  # only for those who use it

    sources = dict(validator.trust_domains)
    for domain, bundle in load_bundles(validator).items():
        path = _path(sources.get(domain, validator.trust_bundles))
        for root in bundle.roots:
            yield f"{domain}: {path}", details_of(root.public_bytes(Encoding.DER)), True


def _path(source: DataSource | None) -> str:
    return source.filename or _INLINE if source is not None else _INLINE


def _described(path: str, details: CertificateDetails, now: float) -> dict[str, Any]:
    names = [
        {member: value.decode("utf-8", "replace")}
        for kind, member in _KINDS
        for found, value in details.sans
        if found == kind
    ]
    return {
        "path": path,
        "serial_number": details.serial,
        "subject_alt_names": names,
        "days_until_expiration": str(max(0, int((details.valid_until.timestamp() - now) // _DAY))),
        "valid_from": _time(details.valid_from),
        "expiration_time": _time(details.valid_until),
    }


def _time(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
