"""Where an etcd is and how to speak to it, in one URL."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

_OPTIONS = ("ca", "cert", "key", "server_name", "keep", "timeout")
_PREFIX = "/mizzen"


@dataclass(frozen=True, slots=True)
class EtcdUrl:
    """`etcd://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]...][/PREFIX][?OPTIONS]`, `etcds://` with TLS.

    All keys are below ``prefix`` (`/mizzen`). Options: `ca`, `cert` and `key` are PEM files, `server_name` is the name in the
    servers' certificates if it is not their host; `keep` is how many revisions are remembered (0: whoever runs the etcd
    compacts it); `timeout` is the seconds that one attempt of a request may take.
    """

    endpoints: tuple[str, ...]
    prefix: str = _PREFIX
    user: str = ""
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    keep: int = 100_000
    timeout: float = 5.0

    @classmethod
    def parse(cls, url: str) -> EtcdUrl:
        """Raises ValueError with what is wrong, without the password."""
        parts = urlsplit(url)
        if parts.scheme not in ("etcd", "etcds"):
            raise ValueError(f"{parts.scheme or 'no scheme'}: a store in etcd is etcd://host:port or etcds://host:port")
        login, _, hosts = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        secure = parts.scheme == "etcds"
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if parts.fragment:
            raise ValueError("# is no part of an etcd URL: write it as %23 in a password")
        for name in options:
            if name not in _OPTIONS:
                raise ValueError(f"{name}: is not an option of an etcd URL: use {', '.join(_OPTIONS)}")
        for name in ("ca", "cert", "key", "server_name"):
            if name in options and not secure:
                raise ValueError(f"{name}: is for TLS: write etcds://")
        return cls(
            tuple(f"http{'s' * secure}://{_address(host)}" for host in hosts.split(",")),
            "/" + parts.path.strip("/") if parts.path.strip("/") else _PREFIX,
            unquote(user),
            unquote(password),
            _context(options) if secure else None,
            options.get("server_name"),
            int(_number(options, "keep", 100_000)),
            _number(options, "timeout", 5.0),
        )

    def __str__(self) -> str:
        hosts = ",".join(endpoint.partition("://")[2] for endpoint in self.endpoints)
        return f"etcd{'s' if self.tls else ''}://{hosts}{self.prefix}"


def _address(host: str) -> str:
    try:
        parts = urlsplit(f"//{host}")
        name, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{host}: is not a host and a port: {error}") from None
    if not name:
        raise ValueError("the host of an etcd is missing: write etcd://host:port")
    return f"{f'[{name}]' if ':' in name else name}:{port or 2379}"


def _number(options: dict[str, str], name: str, default: float) -> float:
    text = options.get(name)
    if text is None:
        return default
    if not text.isdecimal():
        raise ValueError(f"{name}: {text!r} is not a whole number")
    return float(text)


def _context(options: dict[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.get("ca"))
        # as etcdctl: Python 3.13 would insist on identifiers of keys, which not every authority writes
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if "cert" in options:
            context.load_cert_chain(options["cert"], options.get("key"))
        elif "key" in options:
            raise ValueError("key: needs cert as well")
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"ca, cert or key cannot be used: {error}") from None
    return context
