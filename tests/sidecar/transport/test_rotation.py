"""Secrets that change: new connections take the new, old ones stay, and what cannot be used is refused."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.tls import UPSTREAM_TLS, DownstreamTlsContext, parse_upstream_tls_context
from sidecar.config.tls_secrets import SecretReference, TlsCertificate
from sidecar.transport.contexts import memory_file
from sidecar.transport.failures import TlsContextError, TlsFailure
from sidecar.transport.identity import details_of
from sidecar.transport.secrets import FileSecret
from sidecar.transport.watching import FileWatcher
from tests.sidecar.config.building import build
from tests.sidecar.transport.certificates import Certificate
from tests.sidecar.transport.serving import (
    AUTHORITY,
    CLIENT,
    SERVER,
    STRANGERS,
    Document,
    Inner,
    Serving,
    client_context,
    dial,
    downstream,
    exchange,
    in_thread,
    inline,
    on_loop,
    originating,
    secrets,
    serving,
    surroundings,
    trusted,
    upstream,
)

NEW = AUTHORITY.issue("renewed", ["server.example"])
SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


def files(directory: Path, name: str = "server", **fields: Any) -> Document:
    return {
        "certificate_chain": {"filename": str(directory / f"{name}.pem")},
        "private_key": {"filename": str(directory / f"{name}.key")},
        **fields,
    }


def with_certificate(certificate: Document) -> Any:
    return downstream(common={"tls_certificates": [certificate]})


def shown(port: int) -> str:
    """The common name that a new client is shown."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        client_context().wrap_socket(plain, server_hostname="server.example") as wrapped,
    ):
        der = wrapped.getpeercert(binary_form=True)
        assert der is not None
        return details_of(der).subject.decode().removeprefix("CN=")


def replace(path: Path, content: bytes) -> None:
    """As a careful writer does."""
    beside = path.with_suffix(".new")
    beside.write_bytes(content)
    os.replace(beside, path)


async def updated(server: Serving, times: int = 1) -> None:
    await server.until(lambda: server.tls.rotation.updated >= times)


@on_loop
async def test_a_certificate_in_files_is_renewed_without_dropping_connections(tmp_path: Path) -> None:
    SERVER.write(tmp_path, "server")
    async with serving(with_certificate(files(tmp_path))) as server:
        connection, inner = await dial(originating(upstream(), server.surroundings), server.port)
        assert await in_thread(shown, server.port) == "server"
        replace(tmp_path / "server.key", NEW.key_pem)
        replace(tmp_path / "server.pem", NEW.pem)
        await updated(server)
        assert await in_thread(shown, server.port) == "renewed"
        connection.write(b"still")
        await inner.until(lambda: inner.received == b"still")
        assert server.connections[0].info.tls.local.subject == b"CN=server"


@on_loop
async def test_half_of_a_renewal_is_refused_and_the_whole_of_it_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    SERVER.write(tmp_path, "server")
    async with serving(with_certificate(files(tmp_path))) as server:
        replace(tmp_path / "server.pem", NEW.pem)
        await server.until(lambda: server.tls.rotation.rejected)
        assert "the key does not belong to the certificate" in caplog.text
        assert await in_thread(shown, server.port) == "server"
        replace(tmp_path / "server.key", NEW.key_pem)
        await updated(server)
        assert await in_thread(shown, server.port) == "renewed"


@on_loop
async def test_files_in_a_watched_directory_are_read_when_its_link_is_swapped(tmp_path: Path) -> None:
    """The way in which Kubernetes mounts secrets: files are links into `..data`, which is a link, too."""
    for name, certificate in (("one", SERVER), ("two", NEW)):
        (tmp_path / name).mkdir()
        certificate.write(tmp_path / name, "server")
    (tmp_path / "..data").symlink_to("one")
    for file in ("server.pem", "server.key"):
        (tmp_path / file).symlink_to(Path("..data") / file)
    config = with_certificate(files(tmp_path, watched_directory={"path": str(tmp_path)}))
    async with serving(config) as server:
        (tmp_path / "one" / "server.pem").write_bytes(NEW.pem)  # not a swap: nobody looks
        server.surroundings.watcher.look()
        assert (server.tls.rotation.updated, server.tls.rotation.rejected) == (0, 0)
        (tmp_path / "..new").symlink_to("two")
        os.replace(tmp_path / "..new", tmp_path / "..data")
        await updated(server)
        assert await in_thread(shown, server.port) == "renewed"


@on_loop
async def test_trusted_authorities_and_revocations_are_renewed(tmp_path: Path) -> None:
    roots, crl = tmp_path / "roots.pem", tmp_path / "crl.pem"
    roots.write_bytes(AUTHORITY.pem)
    crl.write_bytes(AUTHORITY.revoke())
    validation = {"trusted_ca": {"filename": str(roots)}, "crl": {"filename": str(crl)}}
    config = downstream(validation=validation, require_client_certificate=True)

    def accepted(certificate: Certificate) -> bool:
        try:
            return exchange(server.port, client_context(certificate, tmp_path)) == b"ping"
        except OSError:
            return False

    stranger = STRANGERS.issue("stranger")
    async with serving(config) as server:
        assert await in_thread(accepted, CLIENT) is True
        assert await in_thread(accepted, stranger) is False
        replace(crl, AUTHORITY.revoke(CLIENT) + STRANGERS.revoke())
        await updated(server)
        assert await in_thread(accepted, CLIENT) is False
        replace(roots, AUTHORITY.pem + STRANGERS.pem)
        await updated(server, 2)
        assert await in_thread(accepted, stranger) is True


def secret_file(path: Path, certificate: Certificate, name: str = "mine") -> None:
    resource = {"@type": SECRET, "name": name, "tls_certificate": inline(certificate)}
    replace(path, json.dumps({"resources": [resource]}).encode())


def referring(path: Path | None, name: str = "mine", **fields: Any) -> Document:
    reference: Document = {"name": name}
    if path is not None:
        reference["sds_config"] = {"path_config_source": {"path": str(path), **fields}}
    return reference


@on_loop
async def test_a_secret_in_a_file_of_its_own_is_watched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "secret.yaml"
    secret_file(path, SERVER)
    common = {"tls_certificates": [], "tls_certificate_sds_secret_configs": [referring(path)]}
    async with serving(downstream(common=common)) as server:
        assert await in_thread(shown, server.port) == "server"
        secret_file(path, NEW)
        await updated(server)
        assert await in_thread(shown, server.port) == "renewed"
        path.write_text("resources: [{}]")
        server.surroundings.watcher.look()
        secret_file(path, SERVER, "another")
        await server.until(lambda: "does not hold a TLS certificate called 'mine'" in caplog.text)
        assert await in_thread(shown, server.port) == "renewed"


@on_loop
async def test_what_is_closed_hears_of_no_more_changes(tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    secret_file(path, SERVER)
    common = {"tls_certificates": [], "tls_certificate_sds_secret_configs": [referring(path)]}
    around = surroundings()
    async with serving(downstream(common=common), around=around) as server:
        server.tls.close()
        secret_file(path, NEW)
        around.watcher.look()
        assert server.tls.rotation.updated == 0


@on_loop
async def test_connections_are_refused_until_the_secret_is_there(tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    common = {"tls_certificates": [], "tls_certificate_sds_secret_configs": [referring(path)]}
    async with serving(downstream(common=common)) as server:
        with pytest.raises(OSError):
            await in_thread(shown, server.port)
        assert server.reasons == ["TLS_error:Secret is not supplied by SDS"]
        tls = originating(
            upstream(common={"tls_certificate_sds_secret_configs": [referring(path)]}), server.surroundings
        )
        with pytest.raises(TlsFailure, match="not supplied"):
            await dial(tls, server.port)
        secret_file(path, SERVER)
        await updated(server)
        assert await in_thread(shown, server.port) == "server"
        await dial(tls, server.port)


@on_loop
async def test_a_validation_context_in_a_file_completes_the_one_of_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "validation.yaml"
    resource = {"@type": SECRET, "name": "roots", "validation_context": trusted()}
    path.write_text(json.dumps({"resources": [resource]}))
    common: Document = {
        "combined_validation_context": {
            "default_validation_context": {
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "other.example"}}]
            },
            "validation_context_sds_secret_config": referring(path, "roots"),
        }
    }
    async with serving(downstream()) as server:
        config = build(UPSTREAM_TLS, {"common_tls_context": common}, parse_upstream_tls_context)
        with pytest.raises(TlsFailure, match="SAN matcher"):
            await dial(originating(config, server.surroundings), server.port)
        common["combined_validation_context"]["default_validation_context"] = {}
        config = build(UPSTREAM_TLS, {"common_tls_context": common}, parse_upstream_tls_context)
        tls = originating(config, server.surroundings)
        await dial(tls, server.port)
        resource["validation_context"] = trusted(STRANGERS)
        replace(path, json.dumps({"resources": [resource]}).encode())
        await server.until(lambda: tls.rotation.updated)
        with pytest.raises(TlsFailure, match="unable to get local issuer"):
            await dial(tls, server.port)


@on_loop
async def test_static_secrets_are_found_by_name() -> None:
    config = downstream()
    certificate = config.common_tls_context.tls_certificates[0]
    assert isinstance(certificate, TlsCertificate)
    around = surroundings()
    around.secrets = secrets(around.watcher, mine=certificate)
    common = changed(config.common_tls_context, tls_certificates=(SecretReference("mine"),))
    named = DownstreamTlsContext(common)
    async with serving(named, around=around) as server:
        assert await in_thread(shown, server.port) == "server"


@pytest.mark.parametrize(
    ("certificate", "problem"),
    [
        ({**inline(SERVER), "private_key": inline(NEW)["private_key"]}, "the key does not belong to the certificate"),
        ({**inline(SERVER), "certificate_chain": {"inline_string": "no PEM"}}, "holds no certificate in PEM"),
        ({**inline(SERVER), "private_key": {"inline_string": "no PEM"}}, "private_key"),
        ({**inline(SERVER), "private_key": {"filename": "/nowhere/key"}}, "private_key (/nowhere/key) cannot be read"),
        (
            {**inline(SERVER), "private_key": {"inline_string": SERVER.encrypted_key_pem(b"x").decode()}},
            "private_key",
        ),
        ({"pkcs12": {"inline_string": "nothing"}}, "pkcs12"),
    ],
)
@on_loop
async def test_secrets_that_make_no_context_are_refused_at_the_start(certificate: Document, problem: str) -> None:
    with pytest.raises(TlsContextError) as raised:
        async with serving(with_certificate(certificate)):
            pass
    assert problem in str(raised.value)


@pytest.mark.parametrize(
    ("validation", "problem"),
    [
        ({"trusted_ca": {"inline_string": "nothing"}}, "trusted_ca holds no certificate"),
        ({"trusted_ca": {"filename": "/nowhere/ca"}}, "trusted_ca (/nowhere/ca) cannot be read"),
        (trusted(crl={"inline_string": "nothing"}), "crl"),
    ],
)
@on_loop
async def test_validation_contexts_that_cannot_be_used_are_refused_at_the_start(
    validation: Document, problem: str
) -> None:
    with pytest.raises(TlsContextError) as raised:
        async with serving(downstream(validation=validation)):
            pass
    assert problem in str(raised.value)


@on_loop
async def test_client_certificates_cannot_be_required_without_an_authority() -> None:
    with pytest.raises(TlsContextError, match="require_client_certificate needs"):
        async with serving(downstream(require_client_certificate=True)):
            pass


def test_a_memory_file_is_gone_afterwards_and_never_on_a_disk() -> None:
    with memory_file(b"secret") as path:
        assert Path(path).read_bytes() == b"secret"
        assert os.readlink(path).startswith("/memfd:")
    assert not Path(path).exists()


@on_loop
async def test_the_watcher_tells_each_party_once_and_forgets(tmp_path: Path) -> None:
    around = surroundings()
    watcher = FileWatcher(around.worker.wheel, 60.0)
    calls: list[str] = []
    for name in ("a", "b"):
        (tmp_path / name).write_text("1")
    both = watcher.watch([str(tmp_path / "a"), str(tmp_path / "b")], lambda: calls.append("both"))
    watcher.watch([str(tmp_path / "a")], lambda: calls.append("a"))
    watcher.look()
    assert calls == []
    (tmp_path / "a").write_text("22")
    (tmp_path / "b").unlink()
    watcher.look()
    assert calls == ["both", "a"]
    (tmp_path / "b").write_text("back")
    both.cancel()
    watcher.look()
    assert calls == ["both", "a"]
    watcher.close()
    assert len(around.worker.wheel) == 0


@on_loop
async def test_a_secret_file_keeps_its_last_good_value(tmp_path: Path) -> None:
    around = surroundings()
    path = tmp_path / "file"
    path.write_text("one")

    def load(path: str, name: str) -> Any:
        text = Path(path).read_text()
        if text == "bad":
            raise ValueError("bad")
        return text

    secret: FileSecret[Any] = FileSecret(SecretReference("s", str(path)), load, around.watcher)
    heard: list[object] = []
    unsubscribe = secret.subscribe(lambda: heard.append(secret.value))
    for text in ("bad", "two", "two"):
        replace(path, text.encode())
        around.watcher.look()
    assert secret.value == "two" and heard == ["two"]
    unsubscribe()
    replace(path, b"three")
    around.watcher.look()
    assert secret.value == "three" and heard == ["two"]
    around.watcher.close()


@on_loop
async def test_new_secrets_begin_without_sessions(tmp_path: Path) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(AUTHORITY.pem)
    async with serving(downstream()) as server:
        config = upstream(validation={"trusted_ca": {"filename": str(roots)}})
        tls = originating(config, server.surroundings)

        async def resumed() -> bool:
            connection, inner = await dial(tls, server.port, Inner())
            connection.write(b"x")
            await inner.until(lambda: inner.received)
            assert connection.tls is not None
            return connection.tls.resumed

        assert [await resumed(), await resumed()] == [False, True]
        replace(roots, AUTHORITY.pem + STRANGERS.pem)
        await server.until(lambda: tls.rotation.updated)
        assert await resumed() is False
