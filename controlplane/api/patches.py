"""JSON patch (RFC 6902) and JSON merge patch (RFC 7396): a document and a patch give another document."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from controlplane.api.status import ApiError

_MOST_OPERATIONS = 10_000


def merge_patch(target: Any, patch: Any) -> Any:
    """``target`` with a merge patch on it: objects are merged, null removes, everything else replaces (RFC 7396)."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def json_patch(document: Any, operations: Any) -> Any:
    """``document`` with a JSON patch on it; all of it or none. Raises ApiError 400 for what is no patch, 422 for one that
    cannot be done here.
    """
    if not isinstance(operations, list):
        raise ApiError(400, "a JSON patch must be an array of operations")
    if len(operations) > _MOST_OPERATIONS:
        raise ApiError(413, f"a JSON patch may have {_MOST_OPERATIONS} operations, not {len(operations)}")
    root = [copy.deepcopy(document)]  # the document is in a place of its own, so that it can be replaced as a whole
    for index, operation in enumerate(operations):
        if not isinstance(operation, dict):
            raise ApiError(400, f"operation {index} of the JSON patch is not an object")
        _operate(root, operation, index)
    return root[0]


def _operate(root: list[Any], operation: dict[str, Any], index: int) -> None:
    what = operation.get("op")
    path = _pointer(operation.get("path"), index, "path")
    match what:
        case "add":
            _add(root, path, _value(operation, index), index)
        case "replace":
            value = _value(operation, index)
            _remove(root, path, index, keep=value)
        case "remove":
            _remove(root, path, index)
        case "test":
            if not _equal(_get(root, path, index), _value(operation, index)):
                raise _failed(index, f"the value at {operation['path']!r} is another than the one tested for")
        case "copy":
            _add(root, path, copy.deepcopy(_get(root, _pointer(operation.get("from"), index, "from"), index)), index)
        case "move":
            source = _pointer(operation.get("from"), index, "from")
            if path[: len(source)] == source and path != source:
                raise _failed(index, "a value cannot be moved into itself")
            value = _get(root, source, index)
            _remove(root, source, index)
            _add(root, path, value, index)
        case _:
            raise ApiError(400, f"operation {index} of the JSON patch: {what!r} is none of add, remove, replace, ...")


def _pointer(text: Any, index: int, member: str) -> list[str]:
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise ApiError(
            400, f'operation {index} of the JSON patch: "{member}" must be a JSON pointer such as "/spec/hosts"'
        )
    return ["0"] + [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _value(operation: dict[str, Any], index: int) -> Any:
    if "value" not in operation:
        raise ApiError(400, f'operation {index} of the JSON patch has no "value"')
    return operation["value"]


def _position(around: list[Any], part: str, index: int, most: int) -> int:
    if not part.isascii() or not part.isdigit() or (len(part) > 1 and part[0] == "0") or int(part) > most:
        raise _failed(index, f"there is no item {part!r} in an array of {len(around)}")
    return int(part)


def _get(root: Any, path: list[str], index: int) -> Any:
    for part in path:
        if isinstance(root, list):
            root = root[_position(root, part, index, len(root) - 1)]
        elif isinstance(root, dict) and part in root:
            root = root[part]
        else:
            raise _failed(index, f"there is nothing at {part!r}")
    return root


def _add(root: list[Any], path: list[str], value: Any, index: int) -> None:
    if len(path) == 1:
        root[0] = value
        return
    around, last = _get(root, path[:-1], index), path[-1]
    if isinstance(around, list):
        around.insert(len(around) if last == "-" else _position(around, last, index, len(around)), value)
    elif isinstance(around, dict):
        around[last] = value
    else:
        raise _failed(index, f"nothing can be added at {last!r}: what is there is no object or array")


_GONE = object()


def _remove(root: list[Any], path: list[str], index: int, keep: Any = _GONE) -> None:
    _get(root, path, index)
    around, last = _get(root, path[:-1], index), path[-1]
    if isinstance(around, list):
        position = int(last)
        if keep is not _GONE:
            around[position] = keep
        elif around is root:
            raise _failed(index, "the whole document cannot be removed by a patch: delete the resource")
        else:
            del around[position]
    elif keep is not _GONE:
        around[last] = keep
    else:
        del around[last]


def _equal(left: Any, right: Any) -> bool:
    """Equality in JSON: `true` is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[name], right[name]) for name in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(_equal(one, other) for one, other in zip(left, right, strict=True))
    return bool(left == right)


def _failed(index: int, message: str) -> ApiError:
    return ApiError(422, f"operation {index} of the JSON patch cannot be done: {message}", reason="Invalid")
