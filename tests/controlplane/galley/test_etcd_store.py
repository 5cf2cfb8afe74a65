"""What is particular to etcd: members that fail, users and TLS, records of deletions, what others do to it by hand."""

from __future__ import annotations

import asyncio
import datetime
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controlplane.galley.etcd_client import text
from controlplane.galley.etcd_store import EtcdStore
from controlplane.galley.etcd_url import EtcdUrl
from controlplane.model.store import Action, Compacted, Conflict, Event, Unavailable
from tests.controlplane.galley.etcds import Etcd, cluster, needs_etcd, shared
from tests.controlplane.galley.stores import key, take

pytestmark = needs_etcd


def run(scenario: Callable[[], Awaitable[None]], seconds: float = 60) -> None:
    async def main() -> None:
        async with asyncio.timeout(seconds):
            await scenario()

    asyncio.run(main())


@pytest.fixture(scope="module")
def three() -> Iterator[list[Etcd]]:
    with cluster(3) as etcds:
        yield etcds


@pytest.fixture
def members(three: list[Etcd]) -> list[Etcd]:
    """All three, healthy, whatever the test before has done to them."""
    for etcd in three:
        etcd.kill()
        etcd.start()
    for etcd in three:
        etcd.wait_until_healthy()
    return three


def url_of(etcds: list[Etcd], prefix: str, timeout: int = 2) -> str:
    return f"etcd://{','.join(f'127.0.0.1:{etcd.port}' for etcd in etcds)}/{prefix}?timeout={timeout}"


def test_a_member_that_dies_costs_no_write_and_no_event(members: list[Etcd]) -> None:
    async def scenario() -> None:
        store = await EtcdStore.open(url_of(members, "dies"))
        start = await store.revision()
        heard: list[Event] = []

        async def listen() -> None:
            async for event in store.watch(start):
                heard.append(event)  # noqa: PERF401 - it is looked at meanwhile

        listening = asyncio.create_task(listen())
        acknowledged: list[tuple[str, int]] = []
        unknown: set[str] = set()

        async def write() -> None:
            for n in range(150):
                while True:
                    try:
                        put = await store.put(key(f"n{n}"), b"%d" % n, expected=0, who="")
                    except Unavailable:
                        unknown.add(f"n{n}")
                        await asyncio.sleep(0.02)
                    except Conflict:
                        assert f"n{n}" in unknown  # it was done, and said so
                        break
                    else:
                        acknowledged.append((f"n{n}", put.revision))
                        break
                if n == 30:
                    await asyncio.to_thread(members[0].kill)
                if n == 90:
                    await asyncio.to_thread(members[0].start)
                    await asyncio.to_thread(members[0].wait_until_healthy)
                    await asyncio.to_thread(members[1].kill)

        await write()
        there = {item.key.name: item.revision for item in (await store.list("VirtualService")).items}
        assert len(there) == 150 and all(there[name] == revision for name, revision in acknowledged)
        assert len(acknowledged) >= 148
        while len(heard) < 150:
            await asyncio.sleep(0.01)
        assert [event.stored.key.name for event in heard] == [f"n{n}" for n in range(150)]
        listening.cancel()
        await store.close()

    run(scenario)


def test_an_etcd_that_is_down_is_a_clear_error_and_recovers(members: list[Etcd]) -> None:
    async def scenario() -> None:
        store = await EtcdStore.open(url_of(members, "down"))
        put = await store.put(key("a"), b"1", expected=0, who="")
        watch = store.watch(put.revision)
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0.1)
        for etcd in members:
            await asyncio.to_thread(etcd.kill)
        for call in (
            store.get(key("a")),
            store.list("VirtualService"),
            store.put(key("b"), b"", expected=0, who=""),
            store.delete(key("a"), expected=None, who=""),
            store.history(key("a")),
            store.revision(),
        ):
            with pytest.raises(Unavailable, match=r"the store etcd://.*/down cannot be reached \(http://127"):
                await call
        with pytest.raises(Unavailable):
            await EtcdStore.open(url_of(members, "down"))
        for etcd in members:
            etcd.start()
        for etcd in members:
            await asyncio.to_thread(etcd.wait_until_healthy)
        assert await store.get(key("a")) == put
        second = await store.put(key("a"), b"2", expected=put.revision, who="")
        assert (await waiting).stored == second
        await store.close()

    run(scenario)


def test_a_cluster_without_a_majority_does_not_hold_anybody_up(members: list[Etcd]) -> None:
    async def scenario() -> None:
        store = await EtcdStore.open(url_of(members[2:], "paused", timeout=1))
        put = await store.put(key("a"), b"1", expected=0, who="")
        waiting = asyncio.ensure_future(anext(store.watch(put.revision)))
        for etcd in members[:2]:
            etcd.signal(signal.SIGSTOP)
        try:
            begun = asyncio.get_running_loop().time()
            with pytest.raises(Unavailable):
                await store.put(key("a"), b"2", expected=put.revision, who="")
            assert asyncio.get_running_loop().time() - begun < 10
        finally:
            for etcd in members[:2]:
                etcd.signal(signal.SIGCONT)
        while True:  # whether the first was done is not known, and a repeat does no harm
            try:
                await store.put(key("a"), b"3", expected=None, who="")
                break
            except Unavailable:
                await asyncio.sleep(0.05)
        assert (await waiting).stored.document in (b"2", b"3")
        await store.close()

    run(scenario)


def test_a_write_whose_answer_was_lost_is_recognised_by_its_mark() -> None:
    async def scenario() -> None:
        """A relay in front of etcd lets a transaction pass and swallows its answer."""
        lost = 0
        target = shared().port

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", target)
            asked = b""  # since the last answer; head and body may come apart

            async def there() -> None:
                nonlocal asked
                while data := await reader.read(65536):
                    asked += data
                    up_writer.write(data)

            async def back() -> None:
                nonlocal asked, lost
                while answer := await up_reader.read(65536):
                    if b"/v3/kv/txn" in asked and lost < limit:
                        lost += 1
                        return
                    asked = b""
                    writer.write(answer)

            ways = [asyncio.create_task(there()), asyncio.create_task(back())]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                writer.close()
                up_writer.close()

        server = await asyncio.start_server(relay, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        limit = 0
        store = await EtcdStore.open(f"etcd://127.0.0.1:{port}/lost")
        limit = 1
        put = await store.put(key("a"), b"1", expected=0, who="")
        assert lost == 1 and await store.get(key("a")) == put
        limit = 2
        gone = await store.delete(key("a"), expected=put.revision, who="")
        assert lost == 2 and gone is not None and await store.get(key("a")) is None
        history = await store.history(key("a"))
        assert [event.stored for event in history] == [put, gone]
        limit = 4
        with pytest.raises(Unavailable):
            await store.put(key("b"), b"1", expected=0, who="")
        await store.close()
        server.close()

    run(scenario)


WRITER = """
import asyncio, sys
from controlplane.galley.etcd_store import EtcdStore
from controlplane.model.resource import ResourceKey
from controlplane.model.store import Conflict

async def main():
    store = await EtcdStore.open(sys.argv[1])
    key = ResourceKey("VirtualService", "shop", "counter")
    done = 0
    while done < 40:
        found = await store.get(key)
        try:
            await store.put(key, b"%d" % (int(found.document) + 1), expected=found.revision, who=sys.argv[2])
            done += 1
        except Conflict:
            pass
    await store.close()

asyncio.run(main())
"""


def test_two_processes_on_one_etcd_lose_nothing_of_each_other() -> None:
    async def scenario() -> None:
        url = f"{shared().url}/two"
        store = await EtcdStore.open(url)
        start = await store.put(key("counter"), b"0", expected=0, who="")
        watching = asyncio.create_task(take(store, 80, start.revision))
        writers = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, url, name) for name in ("one", "two")
        ]
        assert [await writer.wait() for writer in writers] == [0, 0]
        events = await watching
        assert [int(event.stored.document) for event in events] == list(range(1, 81))
        assert sorted(event.who for event in events) == ["one"] * 40 + ["two"] * 40
        assert list(await store.history(key("counter")))[1:] == events
        await store.close()

    run(scenario)


def test_what_was_deleted_by_hand_is_told_too() -> None:
    async def scenario() -> None:
        store = await EtcdStore.open(f"{shared().url}/hand")
        put = await store.put(key("a"), b"1", expected=0, who="ann")
        for body in ({"key": text(store.layout.live(key("a")))},):
            await store.client.call("kv/deleterange", body)
        by_hand = {"key": text(store.layout.live(key("b"))), "value": text(b'{"spec": 1}')}
        await store.client.call("kv/put", by_hand)
        await store.client.call("kv/put", {"key": text(b"/hand/live/nonsense"), "value": text(b"")})
        events = await take(store, 2, put.revision)
        assert [(event.action, event.stored.document, event.who) for event in events] == [
            (Action.DELETED, b"1", ""),
            (Action.ADDED, b'{"spec": 1}', ""),
        ]
        assert [item.document for item in (await store.list("VirtualService")).items] == [b'{"spec": 1}']
        await store.close()

    run(scenario)


def test_an_etcd_that_was_restored_to_a_revision_of_the_past_is_noticed() -> None:
    async def scenario() -> None:
        with cluster() as [etcd]:
            store = await EtcdStore.open(etcd.url)
            for n in range(5):
                await store.put(key(f"n{n}"), b"", expected=0, who="")
            waiting = asyncio.ensure_future(anext(store.watch(await store.revision())))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(etcd.kill)
            await asyncio.to_thread(subprocess.run, ["rm", "-r", str(etcd.log.parent / "data")], check=True)
            etcd.start()
            await asyncio.to_thread(etcd.wait_until_healthy)
            with pytest.raises(Compacted):
                await waiting
            assert (await store.list("VirtualService")).items == []
            await store.close()

    run(scenario)


def test_it_compacts_by_itself_and_forgets_records_of_deletions() -> None:
    async def scenario() -> None:
        with cluster() as [etcd]:
            store = await EtcdStore.open(f"{etcd.url}?keep=40")
            await store.put(key("gone"), b"g", expected=0, who="")
            await store.delete(key("gone"), expected=None, who="")
            await store.put(key("kept"), b"k", expected=0, who="")
            for n in range(60):
                last = await store.put(key("a"), b"%d" % n, expected=None, who="")
            _, end = store.layout.all_ended()
            while True:
                asked = {"key": text(store.layout.all_ended()[0]), "range_end": text(end)}
                if not (await store.client.call("kv/range", asked)).get("kvs"):
                    break
                await asyncio.sleep(0.01)
            with pytest.raises(Compacted):
                await take(store, 1, 3)
            assert [item.key.name for item in (await store.list("VirtualService")).items] == ["a", "kept"]
            assert 40 <= len(await store.history(key("a"))) <= 60 and await store.history(key("gone")) == []
            assert [event.stored for event in await take(store, 1, last.revision - 1)] == [last]
            await store.close()

    run(scenario)


def test_users_log_in_and_again_when_their_token_has_ended() -> None:
    async def scenario() -> None:
        with cluster(options=["--auth-token", "simple", "--auth-token-ttl", "1"]) as [etcd]:
            plain = await EtcdStore.open(etcd.url)
            for path, body in (
                ("auth/user/add", {"name": "root", "password": "p@ss:w"}),
                ("auth/role/add", {"name": "root"}),
                ("auth/user/grant", {"user": "root", "role": "root"}),
                ("auth/enable", {}),
            ):
                await plain.client.call(path, body)
            with pytest.raises(Unavailable, match="user name is empty"):
                await plain.get(key("a"))
            await plain.close()
            address = f"127.0.0.1:{etcd.port}"
            with pytest.raises(Unavailable, match=r"refuses user 'root': .*invalid user ID or password"):
                await EtcdStore.open(f"etcd://root:wrong@{address}")
            store = await EtcdStore.open(f"etcd://root:p%40ss%3Aw@{address}")
            put = await store.put(key("a"), b"1", expected=0, who="")
            token, store.client._token = store.client._token, "wrong.1"
            assert await store.get(key("a")) == put
            assert store.client._token not in (token, "wrong.1")
            store.client._token = "wrong.1"
            assert [event.stored for event in await take(store, 1, put.revision - 1)] == [put]
            await store.close()

    run(scenario)


def _certificates(directory: Path) -> None:
    """A CA, and one certificate for 127.0.0.1 that serves both sides."""
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("ca", "peer")]
    for n, name in enumerate(("ca", "peer")):
        builder = (
            x509.CertificateBuilder().subject_name(names[n]).issuer_name(names[0]).public_key(keys[n].public_key())
            .serial_number(n + 1).not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(n == 0, None), True)
        )  # fmt: skip
        if n == 1:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("etcd.test")]), False)
        certificate = builder.sign(keys[0], hashes.SHA256())
        (directory / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "peer.key").write_bytes(secret)


def test_tls_with_client_certificates(tmp_path: Path) -> None:
    _certificates(tmp_path)
    options = [
        f"--cert-file={tmp_path}/peer.pem", f"--key-file={tmp_path}/peer.key", f"--trusted-ca-file={tmp_path}/ca.pem",
        "--client-cert-auth",
    ]  # fmt: skip

    async def scenario() -> None:
        with cluster(options=options) as [etcd]:
            base = f"etcds://127.0.0.1:{etcd.port}/tls?ca={tmp_path}/ca.pem"
            mine = f"&cert={tmp_path}/peer.pem&key={tmp_path}/peer.key"
            store = await EtcdStore.open(f"{base}{mine}&server_name=etcd.test")
            put = await store.put(key("a"), b"1", expected=0, who="")
            assert [event.stored for event in await take(store, 1, put.revision - 1)] == [put]
            await store.close()
            for wrong in (f"{base}{mine}", f"{base}&server_name=etcd.test", f"etcd://127.0.0.1:{etcd.port}"):
                with pytest.raises(Unavailable, match="cannot be reached"):
                    await EtcdStore.open(wrong)

    run(scenario)


@pytest.mark.parametrize(
    ("url", "endpoints", "shown"),
    [
        ("etcd://h", ("http://h:2379",), "etcd://h:2379/mizzen"),
        ("etcd://u:p%40@h:1,[::1]:2/a/b/", ("http://h:1", "http://[::1]:2"), "etcd://h:1,[::1]:2/a/b"),
        ("etcds://h:1?server_name=x", ("https://h:1",), "etcds://h:1/mizzen"),
    ],
)
def test_urls_are_read(url: str, endpoints: tuple[str, ...], shown: str) -> None:
    parsed = EtcdUrl.parse(url)
    assert (parsed.endpoints, str(parsed)) == (endpoints, shown)
    assert "p@" not in repr(parsed)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://h", "a store in etcd is etcd://host:port"),
        ("etcd://", "host of an etcd is missing"),
        ("etcd://a,,b", "host of an etcd is missing"),
        ("etcd://h:port", "h:port: is not a host and a port"),
        ("etcd://h?cas=1", "cas: is not an option"),
        ("etcd://h?ca=/x", "ca: is for TLS: write etcds://"),
        ("etcds://h?key=/x", "key: needs cert as well"),
        ("etcds://h?ca=/does/not/exist", "ca, cert or key cannot be used"),
        ("etcd://h?keep=many", "keep: 'many' is not a whole number"),
        ("etcd://u:p#w@h", "write it as %23"),
    ],
)
def test_urls_that_are_wrong_are_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EtcdUrl.parse(url)
