"""HTTP/1.1 at saturation: CPU microseconds for one request, with a bare GET and with real service calls."""

from __future__ import annotations

from pathlib import Path

from benchmarks import load as loading
from benchmarks.backends import LARGE_BODY_BYTES, LARGE_BODY_PATH, nginx_backend
from benchmarks.cells import saturation
from benchmarks.cells.saturation import Loading, Work, alone
from benchmarks.context import Context
from benchmarks.generated import with_policies
from benchmarks.proxies import ENVOY, Running, serving
from benchmarks.results import CPU, Better, Figure, Row, Target
from benchmarks.tokens import issue
from benchmarks.turns import all_serving, take_turns

SPEED = Target("≥ 1.5 × Envoy", times_envoy=1.5)
BODIES = Figure("mb_per_s", "MB/s", Better.HIGHER)


def wrk(script: Path | None = None, path: str = "/", scheme: str = "http", header: str | None = None) -> Loading:
    """One run of wrk."""

    def load(running: Running, seconds: float) -> Work:
        result = loading.wrk(running.url(path, scheme), seconds=seconds, script=script, header=header)
        figures = {"p50_ms": result.p50_ms, "p99_ms": result.p99_ms}
        if path == LARGE_BODY_PATH:
            figures["mb_per_s"] = result.rate * LARGE_BODY_BYTES / 1e6
        return Work(result.requests, result.seconds, figures)

    return load


def measure(
    context: Context,
    cell: str,
    shape: str,
    script: Path | None = None,
    path: str = "/",
    figure: Figure = CPU,
    target: Target = SPEED,
    scheme: str = "http",
) -> list[Row]:
    """Saturate every proxy that knows `shape` in turns: a row for each, ours with its target."""
    with nginx_backend(context.directory) as backend, all_serving(context, shape, backend.substitutions()) as proxies:
        rows = saturation.measure(context, cell, alone(proxies), wrk(script, path, scheme), figure, target)
    if script is None and path == "/":
        for row in rows:
            context.saturation[shape, row.proxy] = row.figures["rate"]
    return rows


def route_bare(context: Context) -> list[Row]:
    """Route only, the same bare GET again and again."""
    return measure(context, "route-bare", "route_only")


def route_calls(context: Context) -> list[Row]:
    """Route only, 512 paths, a new request id on every request, and the headers of a service call."""
    return measure(context, "route-calls", "route_only", loading.SERVICE_CALL)


def mesh_bare(context: Context) -> list[Row]:
    """Mesh filters on, bare GET."""
    return measure(context, "mesh-bare", "mesh_filters")


def mesh_calls(context: Context) -> list[Row]:
    """Mesh filters on, service calls."""
    return measure(context, "mesh-calls", "mesh_filters", loading.SERVICE_CALL)


def jwt_cached(context: Context) -> list[Row]:
    """Route only and jwt_authn, the same GET with the same RS256 token, which goes on to the service."""
    return _with_token(context, "jwt-cached", forward=True)


def jwt_cached_stripped(context: Context) -> list[Row]:
    """The same with the token taken out of each request."""
    return _with_token(context, "jwt-cached-stripped", forward=False)


def _with_token(context: Context, cell: str, *, forward: bool) -> list[Row]:
    issued = issue()
    loading = wrk(header=f"Authorization: Bearer {issued.token}")
    with nginx_backend(context.directory) as backend:
        given = {**backend.substitutions(), "jwks": issued.jwks, "forward": str(forward).lower()}
        with all_serving(context, "jwt", given) as proxies:
            return saturation.measure(context, cell, alone(proxies), loading, CPU, SPEED)


def rbac_100(context: Context) -> list[Row]:
    """As `route_bare`, behind a hundred policies of which the last one fits."""
    shape = "mesh_filters"  # that of the proxies with the filter
    plain = [proxy.templates["route_only"] for proxy in context.supporting(shape)]
    template = with_policies(plain[0].read_text(), 100) if plain else None
    with (
        nginx_backend(context.directory) as backend,
        all_serving(context, shape, backend.substitutions(), template) as proxies,
    ):
        return saturation.measure(context, "rbac-100", alone(proxies), wrk(), CPU, SPEED)


def bodies(context: Context) -> list[Row]:
    """1 MiB response bodies over 32 connections."""
    return measure(context, "bodies", "route_only", None, LARGE_BODY_PATH, BODIES, Target("≥ Envoy", times_envoy=1.0))


def saturation_rate(context: Context, shape: str) -> float:
    """Envoy's requests per second with a bare GET on `shape`: from the cell that ran before, or measured now."""
    known = context.saturation.get((shape, ENVOY))
    if known is not None:
        return known
    envoy = [proxy for proxy in context.supporting(shape) if proxy.name == ENVOY]
    if not envoy:
        raise LookupError("half of Envoy's rate needs Envoy among the proxies")
    with (
        nginx_backend(context.directory) as backend,
        serving(envoy[0], shape, context.directory, backend.substitutions()) as running,
    ):

        def once(_: str, seconds: float) -> dict[str, float]:
            return saturation.spend([running], wrk(), seconds)

        results = take_turns(context, "saturation", [ENVOY], once)
    if ENVOY not in results:
        raise LookupError("Envoy's saturation rate could not be measured")
    context.saturation[shape, ENVOY] = results[ENVOY].medians()["rate"]
    return context.saturation[shape, ENVOY]
