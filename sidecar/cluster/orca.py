"""Load reports that endpoints send with their responses (ORCA): what is in the header or trailer of one.

Source: Envoy's `common/orca`; the header `endpoint-load-metrics` has `TEXT`, `JSON` or `BIN` before its value,
`endpoint-load-metrics-bin` is a serialised `xds.data.orca.v3.OrcaLoadReport` in base64.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from math import isfinite
from typing import Any

HEADER = b"endpoint-load-metrics"
HEADER_BIN = b"endpoint-load-metrics-bin"

_SINGLE = ("cpu_utilization", "mem_utilization", "application_utilization", "rps_fractional", "eps")
_MAPS = ("named_metrics", "utilization", "request_cost")


class LoadReport:
    """How loaded an endpoint is. Utilizations are 0.0 to 1.0 and more, rates are per second; what was not said is 0.

    `metrics` are those of the maps, by names such as `named_metrics.foo`.
    """

    __slots__ = ("cpu_utilization", "mem_utilization", "application_utilization", "rps_fractional", "eps", "metrics")

    def __init__(self) -> None:
        self.cpu_utilization = self.mem_utilization = self.application_utilization = 0.0
        self.rps_fractional = self.eps = 0.0
        self.metrics: dict[str, float] = {}

    def utilization(self, names: tuple[str, ...]) -> float:
        """The highest of the named metrics, else what the application says, else that of the processor."""
        metrics = self.metrics
        highest = max([_metric(self, metrics, name) for name in names], default=0.0)
        if highest > 0:
            return highest
        return self.application_utilization if self.application_utilization > 0 else self.cpu_utilization

    def weight(self, names: tuple[str, ...], error_utilization_penalty: float) -> int | None:
        """Requests per second for each unit of utilization, errors counted in; None if that cannot be told."""
        rate = self.rps_fractional
        if rate <= 0:
            return None
        utilization = self.utilization(names) + error_utilization_penalty * self.eps / rate
        return int(min(rate / utilization, 0xFFFFFFFF)) if utilization > 0 else None

    def __repr__(self) -> str:
        return f"<LoadReport cpu {self.cpu_utilization} rps {self.rps_fractional} eps {self.eps} {self.metrics}>"


def _metric(report: LoadReport, metrics: Mapping[str, float], name: str) -> float:
    if name in _SINGLE:
        value: float = getattr(report, name)
        return value
    return metrics.get(name, 0.0)


def parse_load_report(fields: Mapping[bytes, bytes]) -> LoadReport | None:
    """The report in these header or trailer fields; None where there is none, or one that is wrong."""
    value = fields.get(HEADER_BIN)
    try:
        if value is not None:
            return _parse_message(value, binary=True)
        value = fields.get(HEADER)
        if value is None:
            return None
        kind, _, text = value.partition(b" ")
        if kind == b"TEXT":
            return _parse_text(text.decode("latin-1"))
        return _parse_message(text, binary=kind == b"BIN") if kind in (b"BIN", b"JSON") else None
    except ValueError:
        return None


def _parse_text(text: str) -> LoadReport:
    report = LoadReport()
    seen = set()
    for token in text.split(","):
        token = token.strip()
        if not token:
            continue
        name, separator, number = token.replace(":", "=", 1).partition("=") if ":" in token else token.partition("=")
        if not separator or name in seen or "_" in number:
            raise ValueError(token)
        seen.add(name)
        value = float(number)
        if not isfinite(value):
            raise ValueError(token)
        if name in _SINGLE:
            setattr(report, name, value)
        else:
            family, _, metric = name.partition(".")
            if family not in _MAPS or not metric:
                raise ValueError(token)
            report.metrics[name] = value
    return report


def _parse_message(value: bytes, binary: bool) -> LoadReport:
    from google.protobuf.json_format import Parse, ParseError  # only for those whose endpoints report so
    from google.protobuf.message import DecodeError
    from xds.data.orca.v3.orca_load_report_pb2 import OrcaLoadReport

    message: Any
    try:
        if binary:
            message = OrcaLoadReport.FromString(b64decode(value + b"=" * (-len(value) % 4), validate=True))
        else:
            message = Parse(value, OrcaLoadReport(), ignore_unknown_fields=True)
    except (DecodeError, ParseError) as error:
        raise ValueError(str(error)) from None
    report = LoadReport()
    for name in _SINGLE:
        setattr(report, name, getattr(message, name))
    for family in _MAPS:
        report.metrics.update((f"{family}.{name}", number) for name, number in getattr(message, family).items())
    return report
