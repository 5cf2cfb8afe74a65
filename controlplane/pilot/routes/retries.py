"""`HTTPRetry` becomes Envoy's `RetryPolicy`.

Source: Istio's reference, "Virtual Service", HTTPRetry; Envoy's, "x-envoy-retry-on".
"""

from __future__ import annotations

from typing import Any

from envoy.config.route.v3 import route_components_pb2 as components
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.extensions.retry.priority.previous_priorities.v3 import previous_priorities_config_pb2
from google.protobuf import any_pb2

# What is repeated when nobody says anything: only what cannot have been processed. Istio repeats more
# (`connect-failure,refused-stream,unavailable,cancelled,503`), which `meshConfig.defaultHttpRetryPolicy` asks for.
DEFAULT_RETRY_ON = "connect-failure,refused-stream,reset-before-request"
DEFAULT_ATTEMPTS = 2
_HOST_SELECTION_ATTEMPTS = 5
_STATUS_CODES = "retriable-status-codes"


def retry_policy(retries: Any, default: Any = None, *, hashed: bool = False) -> Any:
    """The `RetryPolicy` of a route, None for no retries at all (0 attempts).

    ``retries`` is the route's own HTTPRetry, ``default`` the mesh's (`defaultHttpRetryPolicy`). With ``hashed`` the request
    goes where its hash says, also when it is repeated, so hosts that were tried are not left out.
    """
    wanted = retries if retries is not None else default
    attempts = DEFAULT_ATTEMPTS if wanted is None or wanted.attempts is None else wanted.attempts
    if attempts <= 0:
        return None
    retry_on, codes = _conditions(wanted.retry_on if wanted is not None and wanted.retry_on else DEFAULT_RETRY_ON)
    made = components.RetryPolicy(retry_on=retry_on, retriable_status_codes=codes)
    made.num_retries.value = attempts
    if not hashed and (wanted is None or wanted.retry_ignore_previous_hosts is not False):
        predicate = made.retry_host_predicate.add(name="envoy.retry_host_predicates.previous_hosts")
        predicate.typed_config.Pack(previous_hosts_pb2.PreviousHostsPredicate(), deterministic=True)
        made.host_selection_retry_max_attempts = _HOST_SELECTION_ATTEMPTS
    if wanted is None:
        return made
    if wanted.per_try_timeout is not None:
        _set_seconds(made.per_try_timeout, wanted.per_try_timeout)
    if wanted.backoff is not None:
        _set_seconds(made.retry_back_off.base_interval, wanted.backoff)
    if wanted.retry_remote_localities:
        made.retry_priority.name = "envoy.retry_priorities.previous_priorities"
        made.retry_priority.typed_config.CopyFrom(_PREVIOUS_PRIORITIES)
    return made


def _conditions(text: str) -> tuple[str, list[int]]:
    """The conditions, and the status codes among them, as Envoy wants them told apart."""
    conditions: list[str] = []
    codes: list[int] = []
    for word in (part.strip() for part in text.split(",")):
        if word.isdecimal():
            codes.append(int(word))
        elif word:
            conditions.append(word)
    if codes and _STATUS_CODES not in conditions:
        conditions.append(_STATUS_CODES)
    return ",".join(conditions), codes


def _set_seconds(field: Any, seconds: float) -> None:
    field.FromNanoseconds(round(seconds * 1e9))


def _previous_priorities() -> Any:
    packed = any_pb2.Any()
    packed.Pack(previous_priorities_config_pb2.PreviousPrioritiesConfig(update_frequency=2))
    return packed


_PREVIOUS_PRIORITIES = _previous_priorities()
