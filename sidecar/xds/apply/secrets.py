"""SDS: one secret, for all TLS contexts that name it. Source: Envoy's "Secret discovery service (SDS)"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from sidecar.config.tls_secrets import CertificateValidationContext, TlsCertificate, parse_secret
from sidecar.core.discovery import DiscoveredResource, Rejection
from sidecar.core.pace import Pace
from sidecar.xds.apply.judging import Judge, Refused, applying
from sidecar.xds.apply.records import Failure, Record, same

SECRET: Final = "envoy.extensions.transport_sockets.tls.v3.Secret"

Value = TlsCertificate | CertificateValidationContext


class Taker(Protocol):
    """Who wants the secret."""

    def take(self, value: object) -> None:
        """This is it from now on. Raises ValueError for one of another kind."""
        ...

    def answer(self) -> None:
        """Whoever waits for it goes on without."""
        ...


class SecretWatcher:
    """The ``ResourceWatcher`` of the secret called ``name``. ``check`` raises ValueError for what cannot be used."""

    def __init__(
        self,
        name: str,
        judge: Judge,
        pace: Pace,
        taker: Taker,
        check: Callable[[Value], None],
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self.asked = clock()
        self.record: Record | None = None
        self.judge = judge
        self.pace = pace
        self.taker = taker
        self.check = check
        self.clock = clock

    async def on_update(
        self, resources: Sequence[DiscoveredResource], removed: Sequence[str], version: str, *, whole: bool
    ) -> Sequence[Rejection]:
        """A secret that is gone leaves the one that there is, as in Envoy."""
        resource = next((one for one in resources if one.name == self.name), None)
        if resource is None:
            self.taker.answer()
            return ()
        if self.record is not None and same(self.record.payload, resource.payload):
            self.record.failure = None
            return ()
        try:
            secret = await self.judge.judge(resource, SECRET, "secret", parse_secret, self.pace)
            with applying("secret", self.name):
                self.check(secret.value)
                self.taker.take(secret.value)
        except Refused as refused:
            if self.record is not None:
                self.record.failure = Failure(resource.payload, resource.version, str(refused), self.clock())
            self.taker.answer()
            return (Rejection(self.name, str(refused)),)
        self.record = Record(self.name, resource.version, resource.payload, self.clock())
        return ()

    def on_unavailable(self) -> None:
        """Connections are refused until it comes."""
        self.taker.answer()

    def __repr__(self) -> str:
        return f"<SecretWatcher {self.name!r}>"
