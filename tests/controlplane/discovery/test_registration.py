from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from controlplane.discovery.registration import Registration, RegistrationFailed
from controlplane.galley.etcd_store import EtcdStore
from controlplane.galley.presence import Alone, EtcdPresence
from controlplane.model.parsing import parse
from controlplane.model.proxy import Locality, Proxy, ProxyType
from controlplane.model.registration import entry_of
from controlplane.model.resource import ResourceKey
from controlplane.model.store import Action, Store, Unavailable
from tests.controlplane.galley import etcds
from tests.controlplane.galley.stores import STORES, MakeStore, take

Scenario = Callable[[MakeStore], Awaitable[None]]
Run = Callable[[Scenario], None]
GRACE = 0.5


@pytest.fixture(scope="module", autouse=True)
def _no_etcd_is_left() -> Iterator[None]:
    yield
    etcds.stop_shared()


@pytest.fixture(params=STORES)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    def run(scenario: Scenario) -> None:
        async def main() -> None:
            async with asyncio.timeout(30), request.param(tmp_path) as make:
                await scenario(make)

        asyncio.run(main())

    return run


def proxy(name: str = "reviews-1", address: str = "10.0.0.7", **more: Any) -> Proxy:
    metadata = {"AUTO_REGISTER_GROUP": "reviews-v2", "NAMESPACE": "shop", **more.pop("metadata", {})}
    return Proxy(
        id=f"sidecar~{address}~{name}.shop~shop.svc.cluster.local",
        type=ProxyType.SIDECAR,
        namespace="shop",
        name=name,
        dns_domain="cluster.local",
        addresses=(address,),
        metadata=metadata,
        **{"labels": {"version": "v2"}, **more},
    )


async def make_group(store: Store, **spec: Any) -> None:
    document = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadGroup",
        "metadata": {"name": "reviews-v2", "namespace": "shop", "uid": "g-1"},
        "spec": {
            "metadata": {"labels": {"app": "reviews", "version": "v0"}, "annotations": {"team": "shop"}},
            "template": {"ports": {"http": 9080}, "serviceAccount": "reviews", "labels": {"tier": "back", "app": "x"}},
            **spec,
        },
    }
    await store.put(ResourceKey("WorkloadGroup", "shop", "reviews-v2"), orjson.dumps(document), expected=None, who="")


async def entries(store: Store) -> dict[str, dict[str, Any]]:
    return {item.key.name: orjson.loads(item.document) for item in (await store.list("WorkloadEntry")).items}


async def only(store: Store) -> dict[str, Any]:
    (entry,) = (await entries(store)).values()
    return entry


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.01)


def registration(store: Store, name: str = "cp-1", **options: Any) -> Registration:
    return Registration(store, Alone(name), **{"grace": GRACE, "orphan_grace": 2 * GRACE, **options})


def test_an_entry_is_made_from_the_group_and_what_the_proxy_says(run: Run) -> None:
    async def scenario(make: MakeStore) -> None:
        store = await make()
        await make_group(store, probe={"httpGet": {"port": 8080}})
        mine = proxy(network="net-1", locality=Locality("eu", "eu-1"), service_account="reviews")
        await registration(store).connected(mine)
        entry = await only(store)
        resource = parse(entry)
        assert resource.key == entry_of(mine) and resource.name.startswith("reviews-v2-10.0.0.7-net-1-")
        assert entry["spec"] == {
            "address": "10.0.0.7", "ports": {"http": 9080}, "serviceAccount": "reviews", "network": "net-1",
            "labels": {"tier": "back", "app": "reviews", "version": "v2"}, "locality": "eu/eu-1"
        }  # fmt: skip
        metadata = entry["metadata"]
        assert metadata["labels"] == entry["spec"]["labels"] and metadata["generation"] == 1 and metadata["uid"]
        connected = metadata["annotations"].pop("istio.io/connectedAt")
        age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(connected)
        assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=1)
        assert metadata["annotations"] == {
            "istio.io/autoRegistrationGroup": "reviews-v2",
            "istio.io/workloadController": "cp-1",
            "proxy.istio.io/health-checks-enabled": "true",
            "team": "shop",
        }
        assert metadata["ownerReferences"] == [
            {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadGroup", "name": "reviews-v2", "uid": "g-1",
             "controller": True}
        ]  # fmt: skip
        (event,) = await store.history(resource.key)
        assert event.who == f"workload {mine.id}"

    run(scenario)


def test_only_a_sidecar_with_an_identity_is_said_to_take_mutual_tls(run: Run) -> None:
    """The label comes with the agent and goes without it, whatever labels say; a gRPC server's label is its user's."""

    async def scenario(make: MakeStore) -> None:
        store = await make()
        label, told = "security.istio.io/tlsMode", {"security.istio.io/tlsMode": "istio"}
        await make_group(store, metadata={"labels": {"app": "reviews", **told}})
        registered = registration(store)
        await registered.connected(proxy(metadata={"SDS_AGENT": "true"}))
        entry = await only(store)
        assert entry["spec"]["labels"][label] == entry["metadata"]["labels"][label] == "istio"
        await registered.connected(proxy(labels=told))
        entry = await only(store)
        assert label not in entry["spec"]["labels"] and label not in entry["metadata"]["labels"]
        await registered.connected(proxy(metadata={"SDS_AGENT": "false"}))
        assert label not in (await only(store))["spec"]["labels"]
        await registered.connected(replace(proxy(), type=ProxyType.PROXYLESS))
        assert (await only(store))["spec"]["labels"][label] == "istio"

    run(scenario)


def test_workloads_of_one_address_are_told_apart(run: Run) -> None:
    async def scenario(make: MakeStore) -> None:
        store = await make()
        await make_group(store)
        registers = registration(store)
        await registers.connected(proxy("a", "127.0.1.3", metadata={"APP_ENDPOINTS": {"9081": "127.0.0.1:1"}}))
        await registers.connected(proxy("b", "127.0.1.3", metadata={"APP_ENDPOINTS": {"9082": "127.0.0.1:2"}}))
        await registers.connected(proxy("c", "fd00::1"))
        found = await entries(store)
        assert sorted(entry["spec"]["ports"]["http"] for entry in found.values()) == [9080, 9081, 9082]
        assert any(name.startswith("reviews-v2-fd00--1-") for name in found)
        for entry in found.values():
            parse(entry)

    run(scenario)


def test_it_is_removed_a_grace_period_after_the_last_stream(run: Run) -> None:
    async def scenario(make: MakeStore) -> None:
        store = await make()
        await make_group(store)
        registers, mine = registration(store), proxy()
        await registers.connected(mine)
        await registers.connected(mine)  # the next stream comes before the end of the one before
        await registers.disconnected(mine)
        await asyncio.sleep(1.5 * GRACE)
        assert "istio.io/connectedAt" in (await only(store))["metadata"]["annotations"]
        await registers.disconnected(mine)
        annotations = (await only(store))["metadata"]["annotations"]
        assert "istio.io/connectedAt" not in annotations and annotations["istio.io/disconnectedAt"].endswith("Z")
        begun = asyncio.get_running_loop().time()
        await until(lambda: _gone(store))
        assert asyncio.get_running_loop().time() - begun > 0.5 * GRACE
        await until(lambda: _forgotten(registers))
        await registers.connected(mine)
        assert len(await entries(store)) == 1

    run(scenario)


async def _forgotten(registers: Registration) -> bool:
    return not registers._workloads and not registers._removals


async def _gone(store: Store) -> bool:
    return not await entries(store)


def test_who_comes_back_in_time_stays(run: Run) -> None:
    async def scenario(make: MakeStore) -> None:
        store = await make()
        await make_group(store)
        registers, mine = registration(store), proxy()
        await registers.connected(mine)
        uid = (await only(store))["metadata"]["uid"]
        start = await store.revision()
        for _ in range(4):
            await registers.disconnected(mine)
            await asyncio.sleep(0.3 * GRACE)
            await registers.connected(mine)
        await asyncio.sleep(1.2 * GRACE)
        entry = await only(store)
        assert entry["metadata"]["uid"] == uid and entry["metadata"]["generation"] == 1
        assert "istio.io/disconnectedAt" not in entry["metadata"]["annotations"]
        events = await take(store, 8, start)
        assert {event.action for event in events} == {Action.MODIFIED}

    run(scenario)


def test_who_goes_on_to_another_control_plane_is_that_ones(run: Run) -> None:
    async def scenario(make: MakeStore) -> None:
        store = await make()
        await make_group(store)
        one, two, mine = registration(store, "cp-1"), registration(store, "cp-2"), proxy()
        await one.connected(mine)
        await two.connected(mine)  # before the other one has noticed the end of its stream
        await one.disconnected(mine)
        await one.report_health(mine, False, "of the past")
        await asyncio.sleep(1.5 * GRACE)
        entry = await only(store)
        assert entry["metadata"]["annotations"]["istio.io/workloadController"] == "cp-2" and "status" not in entry
        assert "istio.io/disconnectedAt" not in entry["metadata"]["annotations"]
        await two.disconnected(mine)  # and now in the other order
        await one.connected(mine)
        await asyncio.sleep(1.5 * GRACE)
        assert (await only(store))["metadata"]["annotations"]["istio.io/workloadController"] == "cp-1"

    run(scenario)


def test_what_a_group_and_a_proxy_say_later_counts(run: Run) -> None:
    async def scenario(make: MakeStore) -> None:
        store = await make()
        await make_group(store)
        registers = registration(store)
        await registers.connected(proxy())
        await registers.report_health(proxy(), True)
        await registers.connected(proxy(labels={"version": "v3"}))
        entry = await only(store)
        assert entry["spec"]["labels"]["version"] == "v3" and entry["metadata"]["generation"] == 2
        assert entry["status"]["conditions"][0]["status"] == "True"

    run(scenario)


def test_health_is_a_condition_that_takes_it_out_of_service(run: Run) -> None:
    async def scenario(make: MakeStore) -> None:
        store = await make()
        await make_group(store)
        registers, mine = registration(store), proxy()
        await registers.report_health(mine, False, "not connected yet")  # has no effect
        await registers.connected(mine)
        await registers.report_health(mine, False, "connection refused")
        entry = await only(store)
        (condition,) = entry["status"]["conditions"]
        assert condition["lastTransitionTime"] == condition["lastProbeTime"]
        assert (condition["type"], condition["status"], condition["message"]) == (
            "Healthy",
            "False",
            "connection refused",
        )
        await registers.report_health(mine, False, "connection refused again")
        (again,) = (await only(store))["status"]["conditions"]
        assert again["lastTransitionTime"] == condition["lastTransitionTime"] < again["lastProbeTime"]
        await registers.report_health(mine, True)
        (well,) = (await only(store))["status"]["conditions"]
        assert (well["status"], "message" in well) == ("True", False)
        assert well["lastTransitionTime"] == well["lastProbeTime"] > again["lastProbeTime"]
        assert (await only(store))["metadata"]["generation"] == 1
        parse(await only(store))

    run(scenario)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metadata": {"AUTO_REGISTER_GROUP": "none"}}, r"there is no WorkloadGroup/shop/none; make it first"),
        (
            {"service_account": "thief"},
            r"is of service account thief, but WorkloadGroup/shop/reviews-v2 is for reviews",
        ),
        ({"labels": {"a b": "c"}}, r"cannot register itself by WorkloadGroup/shop/reviews-v2: .*labels"),
    ],
)
def test_what_cannot_be_registered_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    async def main() -> None:
        async with STORES[0].values[0](tmp_path) as make:  # type: ignore[operator]
            store = await make()
            await make_group(store)
            registers = registration(store)
            with pytest.raises(RegistrationFailed, match=message):
                await registers.connected(proxy(**change))
            assert await entries(store) == {} and registers._workloads == {}
            await registers.disconnected(proxy(**change))

    asyncio.run(main())


def test_others_are_left_alone(run: Run) -> None:
    async def scenario(make: MakeStore) -> None:
        store = await make()
        await make_group(store)
        registers, mine = registration(store), proxy()
        without = proxy(metadata={"AUTO_REGISTER_GROUP": ""})
        await registers.connected(without)
        await registers.disconnected(without)
        assert await entries(store) == {}
        with pytest.raises(RegistrationFailed, match="has no address"):
            await registers.connected(Proxy(mine.id, mine.type, "shop", "x", "", metadata=mine.metadata))
        own = {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry", "spec": {"address": "1.2.3.4"}}
        own["metadata"] = {"name": entry_of(mine).name, "namespace": "shop"}
        await store.put(entry_of(mine), orjson.dumps(own), expected=0, who="ann")
        with pytest.raises(RegistrationFailed, match="made by somebody else"):
            await registers.connected(mine)
        sweeping = asyncio.create_task(registers.run())
        await asyncio.sleep(4 * GRACE)
        sweeping.cancel()
        assert await only(store) == own

    run(scenario)


def test_those_of_a_control_plane_that_is_gone_are_removed_after_a_longer_time(run: Run) -> None:
    async def scenario(make: MakeStore) -> None:
        store = await make()
        await make_group(store)
        before = registration(store, "cp-0")
        stays, goes, left = proxy("stays", "10.0.0.1"), proxy("goes", "10.0.0.2"), proxy("left", "10.0.0.3")
        for each in (stays, goes, left):
            await before.connected(each)
        await before.disconnected(left)
        before.stop()  # as if it had been killed
        for each in (stays, goes):
            await before.disconnected(each)
        after = registration(store, "cp-1")
        running = asyncio.create_task(after.run())
        begun = asyncio.get_running_loop().time()
        await asyncio.sleep(1.2 * GRACE)
        assert len(await entries(store)) == 3
        await after.connected(stays)
        await until(lambda: _only_is(store, "10.0.0.1"))
        assert asyncio.get_running_loop().time() - begun >= 2 * GRACE
        await asyncio.sleep(2.5 * GRACE)
        assert await _only_is(store, "10.0.0.1")
        running.cancel()

    run(scenario)


async def _only_is(store: Store, address: str) -> bool:
    return [entry["spec"]["address"] for entry in (await entries(store)).values()] == [address]


def test_only_the_leader_removes_them(run: Run) -> None:
    async def scenario(make: MakeStore) -> None:
        store = await make()
        await make_group(store)
        await registration(store, "cp-0").connected(proxy())
        leads = False
        after = registration(store, "cp-1", leading=lambda: leads)
        running = asyncio.create_task(after.run())
        await asyncio.sleep(4 * GRACE)
        assert len(await entries(store)) == 1
        leads = True
        await until(lambda: _gone(store))
        running.cancel()

    run(scenario)


def test_a_store_that_is_away_is_written_when_it_is_back(tmp_path: Path) -> None:
    class Away:
        """A store that can be out of reach."""

        def __init__(self, store: Store) -> None:
            self.store = store
            self.away = False

        def __getattr__(self, name: str) -> Any:
            if self.away:
                raise Unavailable("the store is away")
            return getattr(self.store, name)

    async def main() -> None:
        async with STORES[0].values[0](tmp_path) as make:  # type: ignore[operator]
            store = await make()
            await make_group(store)
            away: Any = Away(store)
            registers = registration(away)
            running = asyncio.create_task(registers.run())
            away.away = True
            mine, other = proxy(), proxy("other", "10.0.0.8")
            await registers.connected(mine)
            await registers.report_health(mine, False, "ill")
            await registers.connected(other)
            assert await entries(store) == {}
            away.away = False
            await until(lambda: _count(store, 2))
            ill = await store.get(entry_of(mine))
            assert ill is not None and orjson.loads(ill.document)["status"]["conditions"][0]["status"] == "False"
            away.away = True
            await registers.disconnected(mine)
            await registers.disconnected(other)
            await asyncio.sleep(1.5 * GRACE)
            away.away = False
            await until(lambda: _gone(store))
            running.cancel()

    asyncio.run(main())


async def _count(store: Store, count: int) -> bool:
    return len(await entries(store)) == count


@etcds.needs_etcd
def test_control_planes_on_one_etcd_know_of_each_other() -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            stores = [await EtcdStore.open(f"{etcds.shared().url}/presence") for _ in range(2)]
            both = [
                EtcdPresence(store.client, name, lease=2) for store, name in zip(stores, ("one", "two"), strict=True)
            ]
            assert set(await both[0].alive()) == {"one"}
            running = [asyncio.create_task(presence.run()) for presence in both]

            async def see(presence: EtcdPresence, names: set[str]) -> bool:
                return set(await presence.alive()) == names

            await until(lambda: see(both[0], {"one", "two"}))
            await asyncio.sleep(2.5)  # longer than a lease that nobody keeps
            assert await see(both[1], {"one", "two"})
            running[0].cancel()
            await until(lambda: see(both[1], {"two"}))
            running[1].cancel()
            await asyncio.wait(running)
            for store in stores:
                await store.close()

    asyncio.run(main())
