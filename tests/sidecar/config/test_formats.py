"""Format strings that are wrong: each with its file, line and path, wherever the configuration has one, all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config.problems import ConfigurationError, Problem
from sidecar.server import load

CONFIG = """\
static_resources:
  listeners:
  - name: ingress
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          access_log:
          - name: text
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
              log_format:
                text_format_source:
                  inline_string: "%NO_SUCH_ONE% and %PROTOCL% and %PROTOCOL(1)%"
          - name: json
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
              log_format:
                json_format:
                  good: "%PROTOCOL%"
                  nested:
                    a.b: "%REQ(%"
                    list: [plain, 7, "%REQ%"]
          local_reply_config:
            body_format:
              text_format: "100%"
            mappers:
            - filter: {header_filter: {header: {name: a, present_match: true}}}
              headers_to_add: [{header: {key: a, value: "%MAPPED%"}}]
          route_config:
            response_headers_to_add:
            - header:
                key: a
                value: "%RESP(a):x%"
            virtual_hosts:
            - name: backend
              domains: ["*"]
              routes:
              - match: {prefix: /}
                direct_response:
                  status: 200
                request_headers_to_add:
                - header: {key: good, value: "50%% of %PROTOCOL%"}
                - header: {key: b, value: "%START_TIME(%Y)"}
              - match: {prefix: /b}
                route:
                  cluster: b
                  host_rewrite: "%HOST%"
          http_filters:
          - name: mutate
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
              mutations:
                request_mutations:
                - append: {header: {key: a, value: "%APPENDED%"}}
                query_parameter_mutations:
                - append: {record: {key: a, value: "%QUERIED%"}}
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: b
    load_assignment: {cluster_name: b}
"""
MANAGER = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config"


@pytest.fixture
def problems(tmp_path: Path) -> dict[str, list[Problem]]:
    """What is refused in the configuration, by the path inside the connection manager."""
    path = tmp_path / "envoy.yaml"
    path.write_text(CONFIG)
    with pytest.raises(ConfigurationError) as caught:
        load(str(path))
    found: dict[str, list[Problem]] = {}
    for problem in caught.value.problems:
        assert problem.file == str(path)
        assert problem.what_to_do
        found.setdefault(problem.path.removeprefix(MANAGER + "."), []).append(problem)
    return found


def line_of(text: str) -> int:
    """The line of the configuration in which a text stands."""
    return CONFIG[: CONFIG.index(text)].count("\n") + 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("access_log[0].typed_config.log_format.text_format_source.inline_string", "%NO_SUCH_ONE%"),
        ('access_log[1].typed_config.log_format.json_format["nested"]["a.b"]', "a.b:"),
        ('access_log[1].typed_config.log_format.json_format["nested"]["list"][2]', '"%REQ%"'),
        ("local_reply_config.body_format.text_format", "100%"),
        ("local_reply_config.mappers[0].headers_to_add[0].header.value", "%MAPPED%"),
        ("route_config.response_headers_to_add[0].header.value", "%RESP(a):x%"),
        ("route_config.virtual_hosts[0].routes[0].request_headers_to_add[1].header.value", "%START_TIME(%Y)"),
        ("route_config.virtual_hosts[0].routes[1].route.host_rewrite", "%HOST%"),
        ("http_filters[0].typed_config.mutations.request_mutations[0].append.header.value", "%APPENDED%"),
        (
            "http_filters[0].typed_config.mutations.query_parameter_mutations[0].append.record.value.string_value",
            "%QUERIED%",
        ),
    ],
)
def test_a_wrong_format_is_told_with_its_line_and_path(
    problems: dict[str, list[Problem]], path: str, text: str
) -> None:
    assert [problem.line for problem in problems[path]] == [line_of(text)] * len(problems[path])


def test_good_formats_are_not_refused(problems: dict[str, list[Problem]]) -> None:
    assert len(problems) == 10


def test_every_wrong_command_of_a_format_is_told_and_what_to_do(problems: dict[str, list[Problem]]) -> None:
    found = problems["access_log[0].typed_config.log_format.text_format_source.inline_string"]
    assert [(problem.problem, problem.what_to_do) for problem in found] == [
        ("is wrong at offset 0: NO_SUCH_ONE: is not a command that is supported here", "remove it"),
        ("is wrong at offset 18: PROTOCL: is not a command that is supported here", "did you mean 'PROTOCOL'?"),
        ("is wrong at offset 32: PROTOCOL: takes no arguments", "correct it"),
    ]


def test_a_percent_sign_that_begins_no_command(problems: dict[str, list[Problem]]) -> None:
    (found,) = problems["local_reply_config.body_format.text_format"]
    assert found.problem == "is wrong at offset 3: a command such as %PROTOCOL% must begin here"
    assert found.what_to_do == "write %% for a percent sign"


def test_without_lines_there_is_still_the_path() -> None:
    logs = [
        {
            "name": "a",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
                "log_format": {"text_format": "%X%"},
            },
        }
    ]
    config = {"admin": {"access_log": logs}, "static_resources": {}}
    with pytest.raises(ConfigurationError) as caught:
        load(config)
    (problem,) = caught.value.problems
    assert (problem.line, problem.path) == (0, "admin.access_log[0].typed_config.log_format.text_format")
