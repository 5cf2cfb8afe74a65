"""What a route does with the requests that it takes, in words."""

from __future__ import annotations

from typing import Any

from sidecar.core.explanation import ENDS, TAKEN, Step
from sidecar.router.route import Route


def explain_action(route: Route, stream: Any) -> Step:
    """Where the route sends the request of ``stream``, or what it answers."""
    name = f"route {route.name!r}" if route.name else "the route"
    metadata = route.metadata or {}
    if route.kind == "redirect":
        assert route.redirect is not None
        status, location = route.redirect(stream.request, stream)
        text = f"{name} redirects: {status}, location {location.decode('latin-1')}"
        return Step("route action", route.name, ENDS, text, metadata=metadata)
    if route.kind == "direct_response":
        assert route.direct_response is not None
        text = f"{name} answers itself: {route.direct_response[0]}"
        return Step("route action", route.name, ENDS, text, metadata=metadata)
    cluster = route.cluster_name or stream.cluster_name
    details = []
    total = sum(weight for _, weight in route.weights)
    if len(route.weights) > 1:
        shares = ", ".join(f"{weight} of {total} to {name!r}" for name, weight in route.weights)
        details.append(f"one of several by weight: {shares}; this request goes by a throw of the dice")
    details.append(f"timeout {route.timeout:g} s" if route.timeout else "no timeout")
    if route.retry is not None:
        details.append(f"retries {', '.join(sorted(route.retry.config.retry_on))}, at most {route.retry.num_retries}")
    details += [
        f"a copy goes to {mirror.cluster_name or mirror.cluster_header.decode('latin-1')}" for mirror in route.mirrors
    ]
    if route.metadata_match:
        labels = ", ".join(f"{key}={value}" for key, value in route.metadata_match)
        details.append(f"only to endpoints with {labels}")
    text = f"{name} leads to cluster {cluster!r}"
    return Step("route action", route.name, TAKEN, text, tuple(details), metadata)
