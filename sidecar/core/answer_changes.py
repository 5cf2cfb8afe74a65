"""Applying to heads what an authorization service wants changed.

Source: Envoy's ``service.auth.v3.OkHttpResponse`` and its ext_authz filter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from sidecar.core.authorization import ADD, ADD_IF_ABSENT, OVERWRITE, SET, Answer, Change
from sidecar.core.head import RequestHead, ResponseHead
from sidecar.core.header_changes import JOINED
from sidecar.core.mutation_rules import ALLOWED, FORBIDDEN, CheckChange

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_TARGET: Final = re.compile(rb"[^\x00-\x20\x7f]+")
_QUERY: Final = re.compile(rb"[^\x00-\x20#\x7f]*")
_ENCODED: Final = re.compile(rb"[A-Za-z0-9\-._*]*")
_STATUS: Final = re.compile(rb"[2-5][0-9][0-9]")
_PSEUDO: Final = {
    b":path": "path",
    b":authority": "authority",
    b"host": "authority",
    b":method": "method",
    b":scheme": "scheme",
}


def is_valid(name: bytes, value: bytes) -> bool:
    """Whether they can stand in a head."""
    if name == b":status":
        return _STATUS.fullmatch(value) is not None
    if name in _PSEUDO:
        return _TARGET.fullmatch(value) is not None
    return _NAME.fullmatch(name) is not None and _VALUE.fullmatch(value) is not None


def change_request(request: RequestHead, answer: Answer, check: CheckChange | None, *, strict: bool = False) -> bool:
    """Apply what the answer wants of the request. False, with changes half made, if that is not to be.

    ``strict``: parameters of the query must be percent-encoded where they need it, and even where not.
    """
    for change in answer.request_headers:
        if check is not None:
            verdict = check(change.name, False)
            if verdict == FORBIDDEN:
                return False
            if verdict != ALLOWED:
                continue
        if change.name == b":status" or not is_valid(change.name, change.value):
            return False
        _change(request, change)
    for name in answer.headers_to_remove:
        if check is not None:
            verdict = check(name, True)
            if verdict == FORBIDDEN:
                return False
            if verdict != ALLOWED:
                continue
        if not name.startswith(b":") and name != b"host":
            request.remove(name)
    if answer.query_to_set or answer.query_to_remove:
        return _change_query(request, answer, _ENCODED if strict else _QUERY)
    return True


def _change(request: RequestHead, change: Change) -> None:
    name, value, action = change
    pseudo = _PSEUDO.get(name)
    if pseudo is not None:
        before: bytes = getattr(request, pseudo)
        setattr(request, pseudo, value if action == SET else before + b"," + value)
        return
    present = request.get(name)
    if action == SET:
        request.set(name, value)
    elif action == ADD and (present is None or name not in JOINED):
        request.add(name, value)
    elif present is not None:
        values = request.get_all(name)
        request.set(name, values[0] + b"," + value)
        for other in values[1:]:
            request.add(name, other)


def change_response(head: ResponseHead, changes: Iterable[Change]) -> None:
    """Apply what the answer wants of the response."""
    for name, value, action in changes:
        if name == b":status":
            if action in (SET, OVERWRITE):
                head.status = int(value)
            continue
        present = head.get(name)
        if action == ADD and name in JOINED and present is not None:
            head.set(name, present + b"," + value)
        elif action == ADD:
            head.add(name, value)
        elif (
            action == SET
            or (action == OVERWRITE and present is not None)
            or (action == ADD_IF_ABSENT and present is None)
        ):
            head.set(name, value)


def _change_query(request: RequestHead, answer: Answer, valid: re.Pattern[bytes]) -> bool:
    path, _, query = request.path.partition(b"?")
    parameters = [(key, value) for pair in query.split(b"&") if pair for key, _, value in (pair.partition(b"="),)]
    for key, value in answer.query_to_set:
        if not (valid.fullmatch(key) and valid.fullmatch(value)):
            return False
        parameters = [pair for pair in parameters if pair[0] != key]
        parameters.append((key, value))
    for key in answer.query_to_remove:
        parameters = [pair for pair in parameters if pair[0] != key]
    parameters.sort(key=lambda pair: pair[0])
    text = b"&".join(key + b"=" + value for key, value in parameters)
    request.path = path + b"?" + text if text else path
    return True
