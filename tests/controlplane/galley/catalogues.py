"""A catalogue in tests: what it was told, and ways to wait for what it has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson

from controlplane.galley.catalogue import Catalogue
from controlplane.galley.directory import key_of
from controlplane.galley.source import Source
from controlplane.model.resource import Metadata, Origin, Resource, ResourceKey


def document(name: str, namespace: str = "shop", kind: str = "VirtualService", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def written(name: str, namespace: str = "shop", kind: str = "VirtualService", **spec: Any) -> bytes:
    return orjson.dumps(document(name, namespace, kind, **spec))


def parse(body: Mapping[str, Any], origin: Origin) -> Resource:
    """Judges no more than whether `spec.bad` is there."""
    spec = body.get("spec") or {}
    if "bad" in spec:
        raise ValueError(f"spec.bad: {spec['bad']}")
    metadata = body["metadata"]
    return Resource(
        key_of(body, origin),
        Metadata(metadata["name"], resource_version=metadata.get("resourceVersion", "")),
        spec,
        body,
        origin,
    )


class Watched:
    """A running catalogue. ``changes`` are all that it has told."""

    def __init__(self, sources: Sequence[Source], judge: Callable[[Mapping[str, Any], Origin], Resource]) -> None:
        self.changes: list[Mapping[ResourceKey, Resource | None]] = []
        self.catalogue = Catalogue(sources, judge, self.changes.append)

    @property
    def specs(self) -> dict[str, Any]:
        return {key.name: resource.spec for key, resource in self.catalogue.resources.items()}

    @property
    def problems(self) -> list[str]:
        return [str(problem) for problem in self.catalogue.problems]

    async def until(self, condition: Callable[[], object], seconds: float = 10) -> None:
        """Wait for what the catalogue is to come to."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"not so within {seconds} s: {self.specs} {self.problems}") from None


@asynccontextmanager
async def watched(
    *sources: Source, judge: Callable[[Mapping[str, Any], Origin], Resource] = parse
) -> AsyncIterator[Watched]:
    watching = Watched(sources, judge)
    running = asyncio.create_task(watching.catalogue.run())
    try:
        async with asyncio.timeout(10):
            synced = asyncio.create_task(watching.catalogue.synced())
            await asyncio.wait([synced, running], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
        yield watching
    finally:
        running.cancel()
        await asyncio.wait([running])
