"""The composition root's part for secrets that are discovered, loaded when a TLS context names one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from sidecar.config.config_source import ConfigSource
from sidecar.config.tls_parameters import parse_tls_parameters
from sidecar.config.tls_secrets import CertificateValidationContext, SecretReference, TlsCertificate
from sidecar.telemetry.groups.server import SecretSubscriptionStats
from sidecar.transport.contexts import client_context, load_certificate
from sidecar.transport.secrets import DiscoveredSecret
from sidecar.transport.verification import compile_validation
from sidecar.xds.apply.secrets import SECRET, SecretWatcher
from sidecar.xds.apply.secrets import Value as Secret

if TYPE_CHECKING:
    from sidecar.xds_stack import XdsStack

Value = TypeVar("Value", TlsCertificate, CertificateValidationContext)


class XdsSecrets:
    """The secrets that are asked for, each once for all who use it."""

    def __init__(self, xds: XdsStack) -> None:
        self.xds = xds
        self._sources: dict[tuple[object, str, ConfigSource | None], DiscoveredSecret[Any]] = {}
        self._watchers: dict[DiscoveredSecret[Any], SecretWatcher] = {}

    def source(self, kind: type[Value], reference: SecretReference) -> DiscoveredSecret[Value]:
        """The source of a secret. It is asked for when the first waits for it, until nobody has any use for it."""
        key = (kind, reference.name, reference.source)
        found = self._sources.get(key)
        if found is None:
            found = self._sources[key] = DiscoveredSecret(reference.name, kind, partial(self._ask, reference))

            def forget() -> None:
                self._sources.pop(key, None)

            found.on_unused = forget
        return found

    def _ask(self, reference: SecretReference, secret: DiscoveredSecret[Any]) -> Callable[[], None]:
        xds = self.xds
        with xds.stack.store.recording():  # they are not of the listener that is the first to ask
            stats = xds.stack.store.shared(SecretSubscriptionStats, f"sds.{reference.name}.")
        watcher = SecretWatcher(reference.name, xds.judge, xds.pace, secret, check, xds.now)
        self._watchers[secret] = watcher
        subscription = xds.discovery.subscribe(
            reference.source, f"type.googleapis.com/{SECRET}", (reference.name,), watcher, stats
        )

        def close() -> None:
            del self._watchers[secret]
            subscription.close()
            xds.stack.store.release([stats])

        return close

    def watchers(self) -> Iterator[SecretWatcher]:
        """One for each secret that is asked for."""
        return iter(self._watchers.values())

    def __repr__(self) -> str:
        return f"<XdsSecrets {len(self._watchers)} asked for>"


_USUAL = parse_tls_parameters(None, upstream=True)


def check(secret: Secret) -> None:
    """Raise TlsContextError for a secret that makes no TLS context."""
    if isinstance(secret, TlsCertificate):
        client_context(_USUAL, [load_certificate(secret)], None)
    else:
        client_context(_USUAL, [], secret, compile_validation(secret).authorities)
