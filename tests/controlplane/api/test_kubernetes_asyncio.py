"""A second client, kubernetes-asyncio: typed, custom objects, dynamic, watches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

kubernetes_asyncio = pytest.importorskip("kubernetes_asyncio")

from kubernetes_asyncio import client, config, watch  # noqa: E402
from kubernetes_asyncio.client.exceptions import ApiException  # noqa: E402
from kubernetes_asyncio.dynamic import DynamicClient  # noqa: E402

from tests.controlplane.api.serving import serve, virtual_service  # noqa: E402

NETWORKING = ("networking.istio.io", "v1")


def with_client(directory: Path, test: Callable[[client.ApiClient], Awaitable[None]]) -> None:
    """Run a test with a client that is set up from the admin's kubeconfig."""

    async def main() -> None:
        async with serve(directory) as served:
            settings = client.Configuration()
            await config.load_kube_config(str(served.kubeconfig), client_configuration=settings)
            async with client.ApiClient(settings) as api:
                await asyncio.wait_for(test(api), 30)

    asyncio.run(main())


def test_custom_objects(tmp_path: Path) -> None:
    async def test(api: client.ApiClient) -> None:
        objects = client.CustomObjectsApi(api)
        place = (*NETWORKING, "default", "virtualservices")
        made = await objects.create_namespaced_custom_object(*place, virtual_service("reviews"))
        assert made["metadata"]["generation"] == 1
        made["spec"]["hosts"] = ["a", "b"]
        replaced = await objects.replace_namespaced_custom_object(*place, "reviews", made)
        assert replaced["metadata"]["generation"] == 2
        with pytest.raises(ApiException) as conflict:
            await objects.replace_namespaced_custom_object(*place, "reviews", made)
        assert conflict.value.status == 409
        patched = await objects.patch_namespaced_custom_object(
            *place, "reviews", [{"op": "add", "path": "/metadata/labels", "value": {"x": "y"}}]
        )
        assert patched["metadata"]["labels"] == {"x": "y"}
        status = await objects.patch_namespaced_custom_object_status(
            *place, "reviews", {"status": {"seen": True}}, _content_type="application/merge-patch+json"
        )
        assert status["status"] == {"seen": True}
        listed = await objects.list_cluster_custom_object(*NETWORKING, "virtualservices", label_selector="x=y")
        assert [one["metadata"]["name"] for one in listed["items"]] == ["reviews"]
        deleted = await objects.delete_namespaced_custom_object(*place, "reviews")
        assert deleted["status"] == "Success"
        with pytest.raises(ApiException) as gone:
            await objects.get_namespaced_custom_object(*place, "reviews")
        assert gone.value.status == 404

    with_client(tmp_path, test)


def test_typed_core_kinds(tmp_path: Path) -> None:
    async def test(api: client.ApiClient) -> None:
        core = client.CoreV1Api(api)
        assert {one.metadata.name for one in (await core.list_namespace()).items} == {"default", "istio-system"}
        await core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name="shop")))
        port = client.V1ServicePort(name="http", port=9080, target_port="web")
        service = client.V1Service(
            metadata=client.V1ObjectMeta(name="reviews"),
            spec=client.V1ServiceSpec(selector={"app": "reviews"}, ports=[port]),
        )
        made = await core.create_namespaced_service("shop", service)
        assert made.spec.ports[0].target_port == "web" and made.metadata.creation_timestamp is not None
        labels = {"metadata": {"labels": {"tier": "front"}}}
        patched = await core.patch_namespaced_service("reviews", "shop", labels)
        assert patched.metadata.labels == {"tier": "front"}
        page = await core.list_namespace(limit=2)
        assert len(page.items) == 2 and page.metadata._continue
        rest = await core.list_namespace(limit=2, _continue=page.metadata._continue)
        assert len(rest.items) == 1
        version = await client.VersionApi(api).get_code()
        assert "mizzen" in version.git_version

    with_client(tmp_path, test)


def test_watch(tmp_path: Path) -> None:
    async def test(api: client.ApiClient) -> None:
        objects = client.CustomObjectsApi(api)
        place = (*NETWORKING, "default", "virtualservices")
        seen: list[tuple[str, str]] = []
        began = asyncio.Event()

        async def look() -> None:
            async with watch.Watch().stream(
                objects.list_namespaced_custom_object, *place, timeout_seconds=20
            ) as stream:
                async for event in stream:
                    seen.append((event["type"], event["object"]["metadata"]["name"]))
                    began.set()
                    if event["type"] == "DELETED":
                        return

        await objects.create_namespaced_custom_object(*place, virtual_service("a"))
        looking = asyncio.create_task(look())
        await began.wait()
        await objects.create_namespaced_custom_object(*place, virtual_service("b"))
        await objects.delete_namespaced_custom_object(*place, "a")
        await looking
        assert seen == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]

    with_client(tmp_path, test)


def test_dynamic_client_finds_its_way_by_discovery(tmp_path: Path) -> None:
    async def test(api: client.ApiClient) -> None:
        dynamic = await DynamicClient(api)
        routes = await dynamic.resources.get(api_version="networking.istio.io/v1beta1", kind="VirtualService")
        document = {**virtual_service("reviews"), "apiVersion": "networking.istio.io/v1beta1"}
        made = await routes.create(body=document, namespace="default")
        assert made.apiVersion == "networking.istio.io/v1beta1" and made.metadata.uid
        found = await routes.get(namespace="default", name="reviews")
        assert found.spec.hosts == ["reviews"]
        await routes.delete(namespace="default", name="reviews")
        assert (await routes.get(namespace="default")).items == []

    with_client(tmp_path, test)
