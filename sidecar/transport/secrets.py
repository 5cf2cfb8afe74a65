"""Where certificates and validation contexts come from while the sidecar runs, and hearing of new ones.

A ``SecretSource`` is all that a TLS context knows of it. Those in the configuration never change (the files that they
name do, and are watched by the contexts), those in files of their own are read again when the file changes, and those that
are discovered (SDS) come when a management server sends them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Generic, Protocol, TypeVar

from sidecar.config.tls_secrets import CertificateValidationContext, SecretReference, TlsCertificate
from sidecar.transport.watching import FileWatcher

_log = logging.getLogger(__name__)

Value = TypeVar("Value", TlsCertificate, CertificateValidationContext)
Covariant = TypeVar("Covariant", covariant=True)


class SecretSource(Protocol[Covariant]):
    """A secret that may come later and may change."""

    @property
    def value(self) -> Covariant | None:
        """The newest, None until there is one."""

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` whenever there is a new value, until what this returns is called."""


class FixedSecret(Generic[Value]):
    """One that stands in the configuration."""

    __slots__ = ("value",)

    def __init__(self, value: Value) -> None:
        self.value: Value | None = value

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """It never changes."""
        return lambda: None

    def __repr__(self) -> str:
        return f"<FixedSecret {type(self.value).__name__}>"


class FileSecret(Generic[Value]):
    """One in a file of its own, read again when the file (or its watched directory) changes.

    A file that cannot be read or understood leaves the last good value in place, and says so in the log.
    """

    __slots__ = ("_changed", "_load", "name", "path", "value", "watch")

    def __init__(self, reference: SecretReference, load: Callable[[str, str], Value], watcher: FileWatcher) -> None:
        self.name = reference.name
        self.path = reference.path
        self.value: Value | None = None
        self._load: Callable[[str, str], Value] = load
        self._changed: list[Callable[[], None]] = []
        self.watch = watcher.watch((reference.watched_directory or reference.path,), self._read)
        self._read()

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        self._changed.append(changed)
        return lambda: self._changed.remove(changed)

    def _read(self) -> None:
        try:
            value = self._load(self.path, self.name)
        except (OSError, ValueError) as error:
            _log.warning("secret %r in %s: %s; the last good one stays", self.name, self.path, error)
            return
        if value != self.value:
            self.value = value
            for changed in list(self._changed):
                changed()

    def __repr__(self) -> str:
        return f"<FileSecret {self.name!r} in {self.path}{'' if self.value else ', not there yet'}>"


class DiscoveredSecret(Generic[Value]):
    """One that a management server sends. ``ask`` asks for it, and gives what ends that.

    What needs it waits with ``start`` until it is there, or nobody has sent it in time: connections are refused then until it
    comes.
    """

    __slots__ = ("_answered", "_ask", "_changed", "_close", "_kind", "_waiting", "name", "on_unused", "value")

    def __init__(
        self, name: str, kind: type[Value], ask: Callable[[DiscoveredSecret[Value]], Callable[[], None]]
    ) -> None:
        self.name = name
        self.value: Value | None = None
        self.on_unused: Callable[[], None] = lambda: None
        self._kind: type[Value] = kind
        self._ask: Callable[[DiscoveredSecret[Value]], Callable[[], None]] = ask
        self._answered = False
        self._changed: list[Callable[[], None]] = []
        self._close: Callable[[], None] | None = None
        self._waiting: list[Callable[[], None]] = []

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        self._changed.append(changed)

        def unsubscribe() -> None:
            self._changed.remove(changed)
            if not self._changed:
                self.on_unused()
                if self._close is not None:
                    self._close()

        return unsubscribe

    def start(self, there: Callable[[], None]) -> None:
        """Ask for it, if nobody has yet; ``there`` is called when it is known, or waited for no more."""
        if self._close is None:
            self._close = self._ask(self)
        if self._answered:
            there()
        else:
            self._waiting.append(there)

    def take(self, value: object) -> None:
        """This is it from now on. Raises ValueError for a secret of another kind."""
        if not isinstance(value, self._kind):
            raise ValueError(f"is a {type(value).__name__}, and a {self._kind.__name__} is wanted")
        if value != self.value:
            self.value = value
            for changed in list(self._changed):
                changed()
        self.answer()

    def answer(self) -> None:
        """Whoever waits for it goes on."""
        self._answered = True
        waiting, self._waiting = self._waiting, []
        for there in waiting:
            there()

    def __repr__(self) -> str:
        return f"<DiscoveredSecret {self.name!r} {self._kind.__name__}{'' if self.value else ', not there yet'}>"


class Discover(Protocol):
    """Gives the source of a secret that is discovered; the same one to all who want it."""

    def __call__(self, kind: type[Value], reference: SecretReference, /) -> DiscoveredSecret[Value]: ...


class Secrets:
    """Finds the source of a secret: in the configuration itself, among the bootstrap's secrets, in a watched file, by discovery.

    ``load_certificate`` and ``load_validation`` read the secret of a name from a file (``config.tls_secret_file``); they
    raise OSError or ValueError. References to the same file share one source.
    """

    __slots__ = ("_certificates", "_discover", "_load_certificate", "_load_validation", "_static", "_validations",
                 "watcher")  # fmt: skip

    def __init__(
        self,
        watcher: FileWatcher,
        static: Mapping[str, TlsCertificate | CertificateValidationContext],
        load_certificate: Callable[[str, str], TlsCertificate],
        load_validation: Callable[[str, str], CertificateValidationContext],
        discover: Discover,
    ) -> None:
        self.watcher = watcher
        self._discover = discover
        self._static = static
        self._load_certificate = load_certificate
        self._load_validation = load_validation
        self._certificates: dict[SecretReference, FileSecret[TlsCertificate]] = {}
        self._validations: dict[SecretReference, FileSecret[CertificateValidationContext]] = {}

    def certificate(self, secret: TlsCertificate | SecretReference) -> SecretSource[TlsCertificate]:
        """The source of a certificate. Raises LookupError for a name that is not there."""
        if isinstance(secret, SecretReference):
            if secret.path:
                found = self._certificates.get(secret)
                if found is None:
                    found = self._certificates[secret] = FileSecret(secret, self._load_certificate, self.watcher)
                return found
            if secret.source is not None:
                return self._discover(TlsCertificate, secret)
            named = self._static[secret.name]
            assert isinstance(named, TlsCertificate)
            secret = named
        return FixedSecret(secret)

    def validation(
        self, secret: CertificateValidationContext | SecretReference
    ) -> SecretSource[CertificateValidationContext]:
        """The source of a validation context. Raises LookupError for a name that is not there."""
        if isinstance(secret, SecretReference):
            if secret.path:
                found = self._validations.get(secret)
                if found is None:
                    found = self._validations[secret] = FileSecret(secret, self._load_validation, self.watcher)
                return found
            if secret.source is not None:
                return self._discover(CertificateValidationContext, secret)
            named = self._static[secret.name]
            assert isinstance(named, CertificateValidationContext)
            secret = named
        return FixedSecret(secret)

    def __repr__(self) -> str:
        return f"<Secrets {len(self._static)} static, {len(self._certificates) + len(self._validations)} in files>"
