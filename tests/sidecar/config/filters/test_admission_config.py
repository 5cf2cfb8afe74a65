"""Every setting of the filters that let only so many requests pass: adaptive concurrency and admission control."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.filters import adaptive_concurrency, admission_control
from sidecar.config.filters.adaptive_concurrency import AdaptiveConcurrency, GradientControllerConfig
from sidecar.config.filters.admission_control import AdmissionControl
from tests.sidecar.config.building import build, problems

LIMITS = {"concurrency_update_interval": "0.1s"}
RTT = {"interval": "60s"}


def adaptive(limits: dict[str, Any] | None = None, rtt: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    controller = {"concurrency_limit_params": {**LIMITS, **(limits or {})},
                  "min_rtt_calc_params": RTT if rtt is None else rtt}  # fmt: skip
    if "percentile" in fields:
        controller["sample_aggregate_percentile"] = {"value": fields.pop("percentile")}
    return {"gradient_controller_config": controller, **fields}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (adaptive(), AdaptiveConcurrency(GradientControllerConfig(0.1, 60.0))),
        (
            adaptive(
                {"max_concurrency_limit": 7},
                {"interval": "5s", "request_count": 8, "jitter": {"value": 9}, "min_concurrency": 2,
                 "buffer": {"value": 11}},
                percentile=90.0,
            ),
            AdaptiveConcurrency(GradientControllerConfig(0.1, 5.0, None, 0.9, 7, 8, 0.09, 2, 0.11)),
        ),
        (
            adaptive(rtt={"fixed_value": "0.02s"}, concurrency_limit_exceeded_status={"code": 429}),
            AdaptiveConcurrency(GradientControllerConfig(0.1, 0.0, 0.02), True, 429),
        ),
        (
            adaptive(enabled={"default_value": False}, concurrency_limit_exceeded_status={"code": 200}),
            AdaptiveConcurrency(GradientControllerConfig(0.1, 60.0), False, 503),
        ),
    ],
)  # fmt: skip
def test_adaptive_concurrency(document: dict[str, Any], expected: AdaptiveConcurrency) -> None:
    assert build(adaptive_concurrency.TYPE, document, adaptive_concurrency.parse_adaptive_concurrency) == expected


def test_how_min_rtt_is_known_must_be_said() -> None:
    found = problems(adaptive_concurrency.TYPE, adaptive(rtt={}), adaptive_concurrency.parse_adaptive_concurrency)
    assert found == [
        ("gradient_controller_config.min_rtt_calc_params.interval", "is required unless fixed_value is set")
    ]


def ranges(*pairs: tuple[int, int]) -> dict[str, Any]:
    found = [{"start": start, "end": end} for start, end in pairs]
    return {"success_criteria": {"http_criteria": {"http_success_status": found}}}


def codes(*statuses: int) -> dict[str, Any]:
    return {"success_criteria": {"grpc_criteria": {"grpc_success_status": list(statuses)}}}


def valued(value: Any) -> dict[str, Any]:
    return {"default_value": value, "runtime_key": "key"}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"success_criteria": {}}, AdmissionControl()),
        (ranges((200, 300), (404, 405)), AdmissionControl(http_successes=((200, 300), (404, 405)))),
        (codes(0, 5), AdmissionControl(grpc_successes=frozenset((0, 5)))),
        (
            {
                "success_criteria": {},
                "enabled": valued(False),
                "sampling_window": "12.5s",
                "aggression": valued(2.5),
                "sr_threshold": valued({"value": 90}),
                "rps_threshold": valued(5),
                "max_rejection_probability": valued({"value": 60}),
            },
            AdmissionControl(
                enabled=False,
                sampling_window=12,
                aggression=2.5,
                sr_threshold=0.9,
                rps_threshold=5,
                max_rejection_probability=0.6,
            ),
        ),
        ({"success_criteria": {}, "aggression": valued(0.1)}, AdmissionControl(aggression=1.0)),
    ],
)
def test_admission_control(document: dict[str, Any], expected: AdmissionControl) -> None:
    assert build(admission_control.TYPE, document, admission_control.parse_admission_control) == expected


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (ranges((99, 300)), "success_criteria.http_criteria.http_success_status[0]"),
        (ranges((200, 601)), "success_criteria.http_criteria.http_success_status[0]"),
        (ranges((200, 300), (300, 200)), "success_criteria.http_criteria.http_success_status[1]"),
        (codes(0, 17), "success_criteria.grpc_criteria.grpc_success_status"),
        ({"success_criteria": {}, "sr_threshold": valued({"value": 0.5})}, "sr_threshold.default_value"),
    ],
)
def test_what_is_wrong_is_refused(document: dict[str, Any], path: str) -> None:
    found = problems(admission_control.TYPE, document, admission_control.parse_admission_control)
    assert [place for place, _ in found] == [path]
