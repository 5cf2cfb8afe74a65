"""The administration interface of several workers: one page of all of theirs.

Statistics and hosts are added up; orders go to every worker; what is the same in all is one worker's answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from sidecar.admin.context import StatsPage
from sidecar.admin.json_text import json_chunks
from sidecar.admin.logging_levels import logging_page
from sidecar.admin.page import JSON, Page, ok, text
from sidecar.admin.query import first_values, parse_target
from sidecar.config.matcher import StringMatcher
from sidecar.core.matching import compile_strings

_ORDERS: Final = frozenset(("/healthcheck/fail", "/healthcheck/ok", "/reset_counters", "/reopen_logs", "/logging"))
_COUNTED: Final = frozenset(
    ("cx_active", "cx_connect_fail", "cx_total", "rq_active", "rq_error", "rq_pending_active", "rq_success", "rq_timeout",
     "rq_total")
)  # fmt: skip
"""What `/clusters` counts of a host; the rest is the same in all workers, or one's own view."""

Ask = Callable[[bytes, bytes], Coroutine[Any, Any, tuple[list[Page], list[int]]]]
"""Asks every worker for a page; the pages in the order of the workers, and the numbers of those that do not answer."""

MISSING: Final = b"x-mizzen-missing"
"""The header of an answer in which the numbers of some workers are missing: which, as a list of their numbers."""


class FleetContext(NamedTuple):
    """What the parent of several workers hands to its administration interface; as `AdminContext` where the names are."""

    ask_one: Callable[[bytes, bytes], Coroutine[Any, Any, Page]]
    ask_all: Ask
    stats: Callable[[dict[str, str], bool], Coroutine[Any, Any, tuple[StatsPage, list[int]]]]
    server_state: Callable[[], str]
    health_check: Callable[[bool], None]
    drain_listeners: Callable[..., Coroutine[Any, Any, list[int]]]
    quit: Callable[[], None]
    started_at: float
    wall_clock: Callable[[], float]
    allow_paths: tuple[StringMatcher, ...]


class FleetAdmin:
    """Answers a method and a target with a page, once the workers have been asked."""

    __slots__ = ("_allowed", "_asking", "context")

    def __init__(self, context: FleetContext) -> None:
        self.context = context
        self._allowed = compile_strings(context.allow_paths) if context.allow_paths else None
        self._asking: set[asyncio.Task[Page]] = set()

    def answer(self, method: bytes, target: bytes) -> Page | asyncio.Future[Page]:
        """The page: at once, or when the workers have answered; 503 while none serves."""
        if self._allowed is not None and not self._allowed(target):
            return text(f"request to path {target.decode('utf-8', 'replace')} not allowed", 403)
        path, parameters = parse_target(target)
        if path == "/ready":
            state = self.context.server_state()
            return text(f"{state}\n", 200 if state == "LIVE" else 503)
        if path == "/quitquitquit" and method == b"POST":
            return Page(200, ok().content_type, ok().body, after=self.context.quit)
        task = asyncio.get_running_loop().create_task(self._answer(method, target, path, parameters))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        return task

    async def _answer(self, method: bytes, target: bytes, path: str, parameters: list[tuple[str, str]]) -> Page:
        context = self.context
        given = first_values(parameters)
        try:
            if path in ("/stats", "/stats/prometheus"):
                made, missing = await context.stats(given, path == "/stats/prometheus")
                return Page(made.status, made.content_type, made.body, fields=_without(missing))
            if path == "/drain_listeners" and method == b"POST":
                missing = await context.drain_listeners(
                    target,
                    graceful="graceful" in given,
                    skip_exit="skip_exit" in given,
                    inboundonly="inboundonly" in given,
                )
                return _done(ok(), missing)
            if path in _ORDERS and method == b"POST":
                return await self._order(method, target, path, parameters)
            if path in ("/clusters", "/memory"):
                pages, missing = await context.ask_all(method, target)
                return replace(_joined(path, given, pages), fields=_without(missing))
            page = await context.ask_one(method, target)
            return self._of_the_whole(page) if path == "/server_info" and page.status == 200 else page
        except ConnectionError:
            return text("no worker serves\n", 503)

    async def _order(self, method: bytes, target: bytes, path: str, parameters: list[tuple[str, str]]) -> Page:
        pages, missing = await self.context.ask_all(method, target)
        if path == "/logging":
            logging_page(parameters)
        elif path.startswith("/healthcheck/"):
            self.context.health_check(path.endswith("fail"))
        return _done(pages[0], missing)

    def _of_the_whole(self, page: Page) -> Page:
        info = json.loads(_bytes(page))
        up = f"{max(0, int(self.context.wall_clock() - self.context.started_at))}s"
        info |= {"state": self.context.server_state(), "uptime_all_epochs": up}
        return Page(200, JSON, json_chunks(info))

    def __repr__(self) -> str:
        return f"<FleetAdmin, {len(self._asking)} pages are on their way>"


def _without(missing: Sequence[int]) -> tuple[tuple[bytes, bytes], ...]:
    return ((MISSING, ", ".join(f"worker {number}" for number in missing).encode()),) if missing else ()


def _done(page: Page, missing: Sequence[int]) -> Page:
    """What an order is answered with: 503 if not all have heard of it yet."""
    if not missing:
        return page
    names = ", ".join(f"worker {number}" for number in missing)
    return replace(text(f"not answered yet, and done when it answers again: {names}\n", 503), fields=_without(missing))


def _bytes(page: Page) -> bytes:
    return page.body if isinstance(page.body, bytes) else b"".join(page.body)


def _joined(path: str, given: dict[str, str], pages: Sequence[Page]) -> Page:
    """One page of all."""
    bodies = [_bytes(page) for page in pages]
    first = pages[0]
    if first.status != 200 or len(pages) == 1:
        return Page(first.status, first.content_type, bodies[0])
    if path == "/memory":
        each = [json.loads(body) for body in bodies]
        return Page(200, JSON, json_chunks({name: str(sum(int(one[name]) for one in each)) for name in each[0]}))
    if given.get("format") == "json":
        return Page(200, JSON, json_chunks(_clusters_json([json.loads(body) for body in bodies])))
    return Page(200, first.content_type, _clusters_text([body.decode() for body in bodies]).encode())


def _clusters_text(pages: Sequence[str]) -> str:
    """`cluster::address::name::value` lines; hosts that only some workers have found are told by those."""
    values: dict[str, str] = {}
    for page in pages:
        for line in page.splitlines():
            name, _, value = line.rpartition("::")
            if name in values and name.rpartition("::")[2] in _COUNTED:
                value = str(int(values[name]) + int(value))
            elif name in values:
                continue
            values[name] = value
    return "".join(f"{name}::{value}\n" for name, value in values.items())


def _clusters_json(pages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    joined = pages[0]
    hosts = {_place(cluster, host): host for cluster, host in _hosts(joined)}
    for page in pages[1:]:
        for cluster, host in _hosts(page):
            mine = hosts.get(_place(cluster, host))
            for metric, other in zip(() if mine is None else mine["stats"], host["stats"], strict=False):
                metric["value"] = str(int(metric.get("value", 0)) + int(other.get("value", 0)))
    for _, host in _hosts(joined):
        for metric in host["stats"]:
            if metric.get("value") == "0":
                del metric["value"]
    return joined


def _hosts(page: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    for cluster in page.get("cluster_statuses", ()):
        for host in cluster.get("host_statuses", ()):
            yield cluster["name"], host


def _place(cluster: str, host: dict[str, Any]) -> tuple[str, str]:
    return cluster, json.dumps(host["address"])
