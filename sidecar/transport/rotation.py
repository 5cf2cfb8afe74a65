"""What is made of secrets, made anew when they change: new connections take the new, old ones keep what they have."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sidecar.config.tls import CommonTlsContext
from sidecar.config.tls_secrets import NO_VALIDATION, CertificateValidationContext, TlsCertificate
from sidecar.config.tls_sources import DataSource
from sidecar.transport.failures import TlsContextError
from sidecar.transport.secrets import DiscoveredSecret, Secrets, SecretSource
from sidecar.transport.statistics import FactoryStats
from sidecar.transport.watching import FileWatch, FileWatcher

_log = logging.getLogger(__name__)

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class SecretsOf:
    """The secrets of one context as they are at one time."""

    certificates: tuple[TlsCertificate, ...]
    validation: CertificateValidationContext | None


class Rotation(Generic[Made]):
    """Holds ``current``, which is None until all secrets are there, and makes a new one when a secret or a file changes.

    What cannot be made in the beginning raises TlsContextError, with ``place`` in front; later, the last good one stays,
    and ``rejected`` counts. Secrets that come and change are counted in ``stats``.
    """

    __slots__ = ("_build", "_certificates", "_default", "_stats", "_unsubscribe", "_validation", "_watch", "_watcher", "current",
                 "place", "rejected", "secrets", "updated")  # fmt: skip

    def __init__(
        self,
        common: CommonTlsContext,
        secrets: Secrets,
        build: Callable[[SecretsOf], Made],
        place: str,
        stats: FactoryStats,
    ) -> None:
        self.place = place
        self.current: Made | None = None
        self.secrets = SecretsOf((), None)  # that ``current`` is made of
        self.updated = 0
        self.rejected = 0
        self._stats = stats
        self._build = build
        self._watcher: FileWatcher = secrets.watcher
        self._watch: FileWatch | None = None
        self._default = common.default_validation_context
        self._certificates: Sequence[SecretSource[TlsCertificate]] = [
            secrets.certificate(one) for one in common.tls_certificates
        ]
        reference = common.validation_context
        self._validation: SecretSource[CertificateValidationContext] | None = (
            None if reference is None else secrets.validation(reference)
        )
        self._unsubscribe = [source.subscribe(self._new_secret) for source in self._certificates]
        if self._validation is not None:
            self._unsubscribe.append(self._validation.subscribe(self._new_secret))
        try:
            self._make()
        except TlsContextError as error:
            self.close()
            raise TlsContextError(f"{place}: {error}" if place else str(error)) from None

    @property
    def discovered(self) -> list[DiscoveredSecret[Any]]:
        """Those of the secrets that a management server sends."""
        sources: list[Any] = [*self._certificates, self._validation]
        return [source for source in sources if isinstance(source, DiscoveredSecret)]

    def close(self) -> None:
        """Hear of changes no more."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe.clear()
        self._forget_files()

    def _forget_files(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _make(self) -> None:
        certificates = tuple(source.value for source in self._certificates)
        validation = self._default if self._validation is None else self._validation.value
        if None in certificates or (self._validation is not None and validation is None):
            return
        if self._default is not None and self._validation is not None and validation is not None:
            validation = combined(self._default, validation)
        known = tuple(one for one in certificates if one is not None)
        sources = [source for one in known for source in one.sources]
        sources += () if validation is None else validation.sources
        self._forget_files()
        # Watched before they are read: a change in between is seen.
        self._watch = self._watcher.watch(watched(sources), self._changed)
        secrets = SecretsOf(known, validation)
        self.current = self._build(secrets)
        self.secrets = secrets

    def _new_secret(self) -> None:
        rejected = self.rejected
        self._changed()
        if self.rejected == rejected:
            self._stats.ssl_context_update_by_sds += 1

    def _changed(self) -> None:
        before = self.current
        try:
            self._make()
        except TlsContextError as error:
            self.rejected += 1
            self.current = before
            _log.warning("%s: new secrets are refused, the last good ones stay: %s", self.place or "TLS", error)
        else:
            self.updated += 1

    def __repr__(self) -> str:
        return f"<Rotation {self.current!r}, {self.updated} updates, {self.rejected} rejected>"


def watched(sources: Sequence[DataSource]) -> list[str]:
    """The paths whose change means that the sources changed."""
    return [source.watched_directory or source.filename for source in sources if source.filename]


def combined(
    default: CertificateValidationContext, dynamic: CertificateValidationContext
) -> CertificateValidationContext:
    """A validation context of the configuration completed by one that is delivered, as protobuf merges messages."""
    nothing = NO_VALIDATION
    return CertificateValidationContext(
        dynamic.trusted_ca or default.trusted_ca,
        dynamic.system_root_certs or default.system_root_certs,
        dynamic.crl or default.crl,
        dynamic.only_verify_leaf_cert_crl or default.only_verify_leaf_cert_crl,
        default.verify_certificate_spki | dynamic.verify_certificate_spki,
        default.verify_certificate_hash | dynamic.verify_certificate_hash,
        default.match_typed_subject_alt_names + dynamic.match_typed_subject_alt_names,
        dynamic.allow_expired_certificate or default.allow_expired_certificate,
        dynamic.trust_chain_verification
        if dynamic.trust_chain_verification != nothing.trust_chain_verification
        else default.trust_chain_verification,
        dynamic.spiffe or default.spiffe,
    )
