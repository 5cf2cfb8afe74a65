"""What proxies get, what they share, and whom a change concerns."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from controlplane.model.resource import ResourceKey
from controlplane.pilot.generators import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SHARED
from controlplane.pilot.scope import Generated, Scope
from tests.controlplane.pilot.mesh import addresses, assignment, change, clusters, mesh, proxy

SHOP = """
kind: Service
metadata: shop/reviews
spec: {ports: [{name: http, port: 9080}], selector: {app: reviews}}
---
kind: WorkloadEntry
metadata: shop/reviews-1
spec: {address: 10.0.0.1, labels: {app: reviews, version: v1}}
---
kind: WorkloadEntry
metadata: shop/reviews-2
spec: {address: 10.0.0.2, labels: {app: reviews, version: v2}}
---
kind: Service
metadata: shop/ratings
spec: {ports: [{name: grpc, port: 7000, targetPort: 7001}], selector: {app: ratings}}
---
kind: WorkloadEntry
metadata: shop/ratings-1
spec: {address: 10.0.0.3, labels: {app: ratings}}
"""
REVIEWS = "outbound|9080||reviews.shop.svc.cluster.local"
RATINGS = "outbound|7000||ratings.shop.svc.cluster.local"


def test_services_become_clusters_with_endpoints() -> None:
    pilot = mesh(SHOP)
    client = proxy(namespace="elsewhere")
    fixed = {"BlackHoleCluster", "PassthroughCluster", "PassthroughByAuthorityCluster", "PassthroughByNameCluster"}
    assert {REVIEWS, RATINGS, *fixed} == set(clusters(pilot, client))
    assert addresses(assignment(pilot, client, REVIEWS)) == ["10.0.0.1:9080", "10.0.0.2:9080"]
    assert addresses(assignment(pilot, client, RATINGS)) == ["10.0.0.3:7001"]


def test_what_did_not_change_is_the_same_object() -> None:
    pilot = mesh(SHOP)
    client = proxy()
    before = {type_url: pilot.resources(client, type_url) for type_url in (CLUSTER, ENDPOINTS)}
    change(pilot, "kind: WorkloadEntry\nmetadata: shop/ratings-1\nspec: {address: 10.0.0.4, labels: {app: ratings}}")
    assert pilot.resources(client, CLUSTER) is before[CLUSTER]
    after = pilot.resources(client, ENDPOINTS)
    assert after[REVIEWS] is before[ENDPOINTS][REVIEWS]
    assert after[RATINGS] is not before[ENDPOINTS][RATINGS]


def test_proxies_that_see_the_same_share_it() -> None:
    pilot = mesh(SHOP)
    one, other = proxy("a"), proxy("b", address="127.0.1.2")
    assert pilot.scope(one) == pilot.scope(other)
    assert pilot.resources(one, CLUSTER) is pilot.resources(other, CLUSTER)
    assert pilot.scope(one) != pilot.scope(proxy("c", labels={"app": "reviews"}, namespace="shop"))


def test_a_change_of_endpoints_is_one_of_endpoints_alone() -> None:
    pilot = mesh(SHOP)
    client = proxy()
    pilot.resources(client, CLUSTER)
    changes = change(
        pilot, "kind: WorkloadEntry\nmetadata: shop/reviews-3\nspec: {address: 10.0.0.9, labels: {app: reviews}}"
    )
    assert changes.endpoints == {"reviews.shop.svc.cluster.local"}
    assert set(pilot.affected(changes, client)) == {ENDPOINTS}
    assert pilot.affected_names(changes, ENDPOINTS, [REVIEWS, RATINGS]) == [REVIEWS]
    assert addresses(assignment(pilot, client, REVIEWS)) == ["10.0.0.1:9080", "10.0.0.2:9080", "10.0.0.9:9080"]


def test_a_workload_that_registers_gets_its_inbound_side() -> None:
    pilot = mesh(SHOP)
    workload = proxy("reviews-4", "shop", labels={"app": "reviews"}, address="10.0.0.4")
    assert "inbound|9080||" in clusters(pilot, workload)
    changes = change(
        pilot,
        "kind: WorkloadEntry\nmetadata: shop/reviews-4\n"
        "spec: {address: 10.0.0.4, labels: {app: reviews}, ports: {http: 8000}}",
    )
    assert {CLUSTER, LISTENER, ENDPOINTS} == set(pilot.affected(changes, workload))
    assert "inbound|8000||" in clusters(pilot, workload)
    assert set(pilot.affected(changes, proxy("other", "shop", address="10.0.0.77"))) == {ENDPOINTS}


def test_a_change_that_is_not_seen_concerns_nobody() -> None:
    pilot = mesh(SHOP)
    client = proxy(namespace="elsewhere")
    pilot.resources(client, CLUSTER)
    rule = (
        "kind: DestinationRule\nmetadata: shop/reviews\n"
        "spec: {host: reviews, exportTo: ['.'], trafficPolicy: {loadBalancer: {simple: RANDOM}}}"
    )
    changes = change(pilot, rule)
    assert not pilot.affected(changes, client)
    assert CLUSTER in pilot.affected(changes, proxy(namespace="shop"))
    changes = change(pilot, rule.replace("'.'", "'*'"))
    assert CLUSTER in pilot.affected(changes, client)
    pilot.resources(client, CLUSTER)
    changes = change(pilot, rule)  # it was seen before, so that its end is a change
    assert CLUSTER in pilot.affected(changes, client)


def test_a_service_that_goes_takes_its_clusters_along() -> None:
    pilot = mesh(SHOP)
    client = proxy()
    assert RATINGS in pilot.resources(client, CLUSTER)
    changes = change(pilot, gone=[ResourceKey("Service", "shop", "ratings")])
    assert {CLUSTER, ENDPOINTS, LISTENER, ROUTES} <= set(pilot.affected(changes, client))
    assert RATINGS not in pilot.resources(client, CLUSTER)
    assert not pilot.resources(client, ENDPOINTS, [RATINGS])


def test_a_fault_of_a_generator_leaves_proxies_what_they_have(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pilot = mesh(SHOP)
    client = proxy()
    before = pilot.resources(client, CLUSTER)

    def broken(scope: Scope) -> Iterator[Generated]:
        yield from ()
        raise RuntimeError("broken")

    rule = (
        "kind: DestinationRule\nmetadata: shop/reviews\nspec: {host: reviews, subsets: [{name: v%d, labels: {v: a}}]}"
    )
    with monkeypatch.context() as patch:
        patch.setattr("controlplane.pilot.kept.SHARED", {**SHARED, CLUSTER: broken})
        change(pilot, rule % 1)
        assert pilot.resources(client, CLUSTER) is before
        assert "translation failed" in caplog.text
    change(pilot, rule % 2)
    assert "outbound|9080|v2|reviews.shop.svc.cluster.local" in pilot.resources(client, CLUSTER)


def test_a_nack_is_told_to_what_the_cluster_was_made_from() -> None:
    pilot = mesh(SHOP)
    change(
        pilot,
        "kind: DestinationRule\nmetadata: shop/reviews\nspec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}",
    )
    wanted = {ResourceKey("Service", "shop", "reviews"), ResourceKey("DestinationRule", "shop", "reviews")}
    name = "outbound|9080|v1|reviews.shop.svc.cluster.local"
    assert set(pilot.causes(proxy(), CLUSTER, name)) == wanted
    assert set(pilot.causes(proxy(), ENDPOINTS, name)) == wanted
    assert not pilot.causes(proxy(), CLUSTER, "BlackHoleCluster")
