"""Access logs, as Envoy's loggers: the mesh's, and those that Telemetry resources choose.

Source: Istio's reference, "Global Mesh Options" (accessLogFile, accessLogFormat, accessLogEncoding), "Telemetry", and "Default
access log format" of its documentation.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import orjson
from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2

from controlplane.model.istio.log_filter import Comparison, LogCondition, parse_log_filter
from controlplane.pilot.memo import Same
from controlplane.pilot.scope import Scope

_log = logging.getLogger(__name__)

BUILT_IN = "envoy"  # the provider that is there without being defined
CLIENT = "CLIENT"
SERVER = "SERVER"
_STANDARD_OUTPUT = "/dev/stdout"
_OPERATORS = {
    "==": accesslog_pb2.ComparisonFilter.EQ,
    ">=": accesslog_pb2.ComparisonFilter.GE,
    "<=": accesslog_pb2.ComparisonFilter.LE,
}

TEXT_FORMAT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% '
    '%BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% '
    "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)
JSON_FORMAT = {
    "start_time": "%START_TIME%",
    "route_name": "%ROUTE_NAME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
    "user_agent": "%REQ(USER-AGENT)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "authority": "%REQ(:AUTHORITY)%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
    "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
    "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}


def access_logs(scope: Scope, side: str) -> list[Any]:
    """`AccessLog` messages for requests and connections of one side: CLIENT for what a workload sends, and of gateways,
    SERVER for what it takes in.

    Telemetry resources decide, the most specific last; without any, the mesh's default providers, or its file.
    """
    key = ("access logs", side, tuple(scope.telemetries), Same(scope.mesh))
    return scope.memo.get(key, lambda: _made(scope, side))


def file_log(path: str, layout: Any, *, omit_empty: bool = False) -> Any:
    """An access log in a file: a line of text, or with a mapping for ``layout`` a JSON object for each."""
    made = file_pb2.FileAccessLog(path=path)
    if isinstance(layout, str):
        made.log_format.text_format_source.inline_string = layout if layout.endswith("\n") else f"{layout}\n"
    else:
        made.log_format.json_format.update(layout)
    made.log_format.omit_empty_values = omit_empty
    log = accesslog_pb2.AccessLog(name="envoy.access_loggers.file")
    log.typed_config.Pack(made, deterministic=True)
    return log


def _made(scope: Scope, side: str) -> list[Any]:
    mesh = scope.mesh
    chosen: dict[str, Any] | None = None  # providers with their filters; None while nobody said anything
    if mesh.default_providers.access_logging:
        chosen = dict.fromkeys(mesh.default_providers.access_logging)
    for resource in scope.telemetries:
        chosen = _decided(chosen, resource.spec.access_logging, side)
    if chosen is None:
        return [_of_mesh(mesh)] if mesh.access_log_file else []
    logs = []
    for name, condition in chosen.items():
        log = _of_provider(mesh, name)
        if log is None:
            continue
        if condition is not None:
            log.filter.CopyFrom(_filter(parse_log_filter(condition.expression)))
        logs.append(log)
    return logs


def _decided(before: dict[str, Any] | None, entries: Sequence[Any], side: str) -> dict[str, Any] | None:
    """Providers after one Telemetry resource: those that it names stand in place of what was said before."""
    relevant = [each for each in entries if each.match is None or each.match.mode in ("CLIENT_AND_SERVER", side)]
    if not relevant:
        return before
    chosen: dict[str, Any] = {}
    for each in relevant:
        names = [provider.name for provider in each.providers] or list(before or (BUILT_IN,))
        for name in names:
            if each.disabled:
                chosen.pop(name, None)
            else:
                chosen[name] = each.filter
    return chosen


def _of_mesh(mesh: Any) -> Any:
    if mesh.access_log_encoding == "JSON":
        fields = orjson.loads(mesh.access_log_format) if mesh.access_log_format else JSON_FORMAT
        return file_log(mesh.access_log_file or _STANDARD_OUTPUT, fields)
    return file_log(mesh.access_log_file or _STANDARD_OUTPUT, mesh.access_log_format or TEXT_FORMAT)


def _of_provider(mesh: Any, name: str) -> Any:
    """The log of an extension provider; None for those that do not take logs in files."""
    for provider in mesh.extension_providers:
        if provider.name != name:
            continue
        settings = provider.envoy_file_access_log
        if settings is None:
            _log.warning("the provider %s is no file (envoyFileAccessLog): nothing is logged there", name)
            return None
        layout = settings.log_format
        path = settings.path or _STANDARD_OUTPUT
        if layout is None:
            return file_log(path, TEXT_FORMAT, omit_empty=bool(settings.omit_empty_values))
        chosen = layout.text if layout.text is not None else dict(layout.labels)
        return file_log(path, chosen, omit_empty=bool(settings.omit_empty_values))
    if name == BUILT_IN:
        return _of_mesh(mesh)
    _log.warning("there is no provider %s in the mesh's extensionProviders: nothing is logged there", name)
    return None


def _filter(condition: LogCondition) -> Any:
    made = accesslog_pb2.AccessLogFilter()
    if isinstance(condition, Comparison):
        if condition.operator == "!=":
            parts = [Comparison("<=", max(0, condition.value - 1)), Comparison(">=", condition.value + 1)]
            made.or_filter.filters.extend(map(_filter, parts))
            return made
        comparison = made.status_code_filter.comparison
        comparison.op = _OPERATORS[condition.operator]
        comparison.value.default_value = condition.value
        comparison.value.runtime_key = "access_log.status_code"  # Envoy wants one; nothing is set under it
        return made
    joined = made.and_filter if condition.operator == "&&" else made.or_filter
    joined.filters.extend(map(_filter, condition.parts))
    return made
