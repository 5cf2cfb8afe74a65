"""The administration interface: which endpoint answers a request, and whether it may. Source: Envoy's "Administration
interface" reference.
"""

from __future__ import annotations

from typing import Final

from sidecar.admin.clusters import clusters_page
from sidecar.admin.commands import Command, Parameter, Parameters, help_text, home_html
from sidecar.admin.config_dump import config_dump_page
from sidecar.admin.context import AdminContext
from sidecar.admin.json_text import json_chunks
from sidecar.admin.listeners import listeners_page
from sidecar.admin.logging_levels import logging_page
from sidecar.admin.page import HTML, JSON, TEXT, Page, ok, text
from sidecar.admin.query import first_values, parse_target
from sidecar.admin.runtime import runtime_modify_page, runtime_page
from sidecar.admin.server_info import hot_restart_version, init_dump_page, memory_page, server_info_page
from sidecar.core.matching import compile_strings

_FILTER: Final = Parameter("filter", "Regular expression (Google re2) for filtering stats")
_INVERT: Final = Parameter("invert_filter", "Invert the filter regex")
_USED_ONLY: Final = Parameter("usedonly", "Only include stats that have been written by system since restart")


class Admin:
    """Answers a method and a target with a page. `context` is everything that it knows of the process."""

    __slots__ = ("_allowed", "commands", "context")

    def __init__(self, context: AdminContext) -> None:
        self.context = context
        self._allowed = compile_strings(context.allow_paths) if context.allow_paths else None
        self.commands = {command.path: command for command in self._commands()}

    def answer(self, method: bytes, target: bytes) -> Page:
        """The page for a request: 403 outside of `allow_paths`, 404 with the help for an unknown path, 405 for a change
        of state that is not asked for by POST.
        """
        if self._allowed is not None and not self._allowed(target):
            return text(f"request to path {target.decode('utf-8', 'replace')} not allowed", 403)
        path, parameters = parse_target(target)
        command = self.commands.get(path)
        if command is None:
            return text(f"invalid path. {help_text(self.commands.values())}", 404)
        reads = command.listed_by_get and method == b"GET" and not parameters
        if command.mutates and method != b"POST" and not reads:
            return text(f"Method {method.decode('latin-1')} not allowed, POST required.", 405)
        return command.handler(parameters)

    def _commands(self) -> tuple[Command, ...]:
        context = self.context
        return (
            Command("/", "Admin home page", self._home),
            Command("/help", "print out list of admin commands", self._help),
            Command("/ready", "print server state, return 200 if LIVE, otherwise return 503", self._ready),
            Command("/server_info", "print server version/status information", lambda _: server_info_page(context)),
            Command("/stats", "print server stats", self._stats, parameters=(
                _USED_ONLY, _FILTER, _INVERT,
                Parameter("format", "Format to use; One of (text, json, prometheus)"),
                Parameter("type", "Stat types to include.; One of (All, Counters, Histograms, Gauges, TextReadouts)"),
                Parameter("histogram_buckets",
                          "Histogram bucket display mode; One of (cumulative, disjoint, detailed, summary)"),
            )),
            Command("/stats/prometheus", "print server stats in prometheus format", self._prometheus, parameters=(
                _USED_ONLY,
                Parameter("text_readouts", "Render text_readouts as new gauges with value 0"),
                _FILTER, _INVERT,
                Parameter("histogram_buckets", "Histogram bucket display mode; One of (cumulative, summary)"),
            )),
            Command("/clusters", "upstream cluster status", self._clusters, parameters=(
                Parameter("filter", "Regular expression (Google re2) for filtering clusters by name"),
                Parameter("format", "Format to use; One of (text, json)"),
            )),
            Command("/listeners", "print listener info", self._listeners, parameters=(
                Parameter("format", "File format to use; One of (text, json)"),
            )),
            Command("/config_dump", "dump current configs", self._config_dump, parameters=(
                Parameter("resource", "The resource to dump: a repeated field of one of the dumps"),
                Parameter("mask", "The fields to dump, as a FieldMask; with resource, the fields of each of them"),
                Parameter("name_regex", "Dump only the configurations whose names match the regular expression"),
                Parameter("include_eds", "Dump the endpoints, too"),
            )),
            Command("/explain", "tell what would become of a request, and why", self._explain,
                    parameters=(
                        Parameter("url", "Its URL, http://HOST:PORT/PATH"),
                        Parameter("method", "Its method; GET by default"),
                        Parameter("header", "A header of it as name:value; may be repeated"),
                        Parameter("to", "IP:PORT that the client connects to, if not the URL's"),
                        Parameter("source", "The client's IP address; 127.0.0.1 by default"),
                        Parameter("peer", "The SPIFFE ID in the client's certificate"),
                        Parameter("alpn", "What a TLS client offers by ALPN, with commas"),
                        Parameter("direction", "inbound or outbound, to choose among listeners of one address"),
                        Parameter("sni", "The server name that a TLS client sends, if not the URL's host"),
                        Parameter("http2", "Whether it comes by HTTP/2"),
                        Parameter("format", "Format to use; One of (text, json)"),
                    )),
            Command("/certs", "print certs on machine", self._certs),
            Command("/memory", "print current allocation/heap usage", lambda _: memory_page()),
            Command("/init_dump", "dump the clusters that are not initialised yet",
                    lambda _: init_dump_page(context.clusters, context.discovered())),
            Command("/runtime", "print runtime values", lambda _: runtime_page(context.bootstrap)),
            Command("/runtime_modify", "refuses: runtime values come from the bootstrap alone", runtime_modify_page,
                    True),
            Command("/hot_restart_version", "print the hot restart compatibility version",
                    lambda _: text(hot_restart_version(context))),
            Command("/logging", "query/change logging levels", logging_page, True, listed_by_get=True, parameters=(
                Parameter("paths", "Change multiple logging levels by setting to"
                          " <logger_name1>:<desired_level1>,<logger_name2>:<desired_level2>"),
                Parameter("level", "desired logging level, this will change all loggers's level;"
                          " One of (, trace, debug, info, warning, error, critical, off)"),
            )),
            Command("/healthcheck/fail", "cause the server to fail health checks", self._health_check_fail, True),
            Command("/healthcheck/ok", "cause the server to pass health checks", self._health_check_ok, True),
            Command("/drain_listeners", "drain listeners", self._drain_listeners, True, parameters=(
                Parameter("graceful", "Wait for the drain time before the listeners are closed"),
                Parameter("skip_exit", "Drain the connections, but never close the listeners"),
                Parameter("inboundonly", "Drain only the listeners whose traffic direction is INBOUND"),
            )),
            Command("/reset_counters", "reset all counters to zero", self._reset_counters, True),
            Command("/reopen_logs", "reopen access logs", self._reopen_logs, True),
            Command("/quitquitquit", "exit the server", self._quit, True),
        )  # fmt: skip

    def _home(self, parameters: Parameters) -> Page:
        return Page(200, HTML, home_html(self.commands).encode())

    def _help(self, parameters: Parameters) -> Page:
        return text(help_text(self.commands.values()))

    def _ready(self, parameters: Parameters) -> Page:
        state = self.context.server_state()
        return text(f"{state}\n", 200 if state == "LIVE" else 503)

    def _stats(self, parameters: Parameters) -> Page:
        page = self.context.stats(first_values(parameters), False)
        return Page(page.status, page.content_type, page.body)

    def _prometheus(self, parameters: Parameters) -> Page:
        page = self.context.stats(first_values(parameters), True)
        return Page(page.status, page.content_type, page.body)

    def _clusters(self, parameters: Parameters) -> Page:
        return clusters_page(self.context.clusters, first_values(parameters))

    def _listeners(self, parameters: Parameters) -> Page:
        return listeners_page(self.context.listeners(), first_values(parameters))

    def _config_dump(self, parameters: Parameters) -> Page:
        return config_dump_page(self.context, first_values(parameters))

    def _explain(self, parameters: Parameters) -> Page:
        from sidecar.admin.explain import explain_page  # only for those who ask

        return explain_page(self.context.explain, parameters)

    def _certs(self, parameters: Parameters) -> Page:
        return Page(200, JSON, b"".join(json_chunks({"certificates": self.context.certificates()})))

    def _health_check_fail(self, parameters: Parameters) -> Page:
        self.context.health_check_fail()
        return ok()

    def _health_check_ok(self, parameters: Parameters) -> Page:
        self.context.health_check_ok()
        return ok()

    def _drain_listeners(self, parameters: Parameters) -> Page:
        given = first_values(parameters)
        self.context.drain_listeners(
            graceful="graceful" in given, skip_exit="skip_exit" in given, inboundonly="inboundonly" in given
        )
        return ok()

    def _reset_counters(self, parameters: Parameters) -> Page:
        self.context.reset_counters()
        return ok()

    def _reopen_logs(self, parameters: Parameters) -> Page:
        self.context.reopen_logs()
        return ok()

    def _quit(self, parameters: Parameters) -> Page:
        return Page(200, TEXT, b"OK\n", after=self.context.quit)

    def __repr__(self) -> str:
        return f"<Admin {len(self.commands)} endpoints>"
