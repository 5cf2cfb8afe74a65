"""What the documentation says is true: its code runs, its configurations load, its links lead somewhere."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from controlplane.model.parsing import parse
from sidecar import __version__
from sidecar.__main__ import parser
from sidecar.server import load
from tests.docs.implemented import BEGIN, END, PAGE, look, refused, render
from tests.running import REPOSITORY
from tests.sidecar.bootstraps import bootstrap, direct, http_listener

README = REPOSITORY / "README.md"
DOCS = REPOSITORY / "docs"
PAGES = [README, REPOSITORY / "CHANGELOG.md", *sorted(DOCS.glob("*.md")), REPOSITORY / "benchmarks" / "README.md"]
FIRST = "python -m pip install . && mizzen demo"
SECOND = "python -m pip install tox && tox"


def blocks(language: str) -> Iterator[tuple[Path, str]]:
    """Every fenced block of a language in our pages."""
    for page in PAGES:
        for found in re.finditer(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
            yield page, found[1]


def _python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with the repository's packages."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def _named(language: str) -> list[object]:
    return [pytest.param(text, id=f"{page.stem}-{number}") for number, (page, text) in enumerate(blocks(language))]


@pytest.mark.parametrize("text", _named("python"))
def test_python_runs(text: str, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(text)
    done = _python(tmp_path, "-W", "error::RuntimeWarning", str(script))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", _named("yaml"))
def test_yaml_is_accepted(text: str) -> None:
    documents = list(yaml.safe_load_all(text))
    if all("apiVersion" in one for one in documents):  # resources, for the control plane
        for one in documents:
            parse(one)
        return
    (parsed,) = documents
    if "scrape_configs" in parsed:  # Prometheus's
        assert parsed["scrape_configs"][0]["metrics_path"] == "/stats/prometheus"
        return
    if text.startswith("# envoy.yaml\n"):  # with mistakes: the next test
        return
    if "access_log" in parsed:
        parsed = bootstrap(http_listener("one", 0, [direct("")], access_log=parsed["access_log"]))
    elif "http_filters" in parsed:
        router = http_listener("one", 0, [])["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
        filters = [one for one in parsed["http_filters"] if one["name"] != "envoy.filters.http.router"]
        parsed = bootstrap(http_listener("one", 0, [direct("")], http_filters=[*filters, *router]))
    load(parsed)


def test_the_refusals_that_are_shown_are_what_is_said(tmp_path: Path) -> None:
    (config,) = (text for page, text in blocks("yaml") if page == PAGE)
    (shown,) = (text for page, text in blocks("console") if page == PAGE)
    command, _, output = shown.partition("\n")
    (tmp_path / "envoy.yaml").write_text(config)
    assert command.startswith("$ python -m ")
    done = _python(tmp_path, *command.split()[2:])
    assert (done.returncode, done.stdout, done.stderr) == (1, "", output)


def test_the_list_of_what_is_implemented_is_what_the_code_reads() -> None:
    found = look()
    assert found.read["envoy.config.cluster.v3.CircuitBreakers.Thresholds"] >= {"max_requests", "retry_budget"}
    assert "stats_sinks" in refused(found, "envoy.config.bootstrap.v3.Bootstrap")
    written = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    assert written == render(found), "run: python -m tests.docs.implemented"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_has_the_two_commands_and_ci_runs_the_second() -> None:
    commands = re.findall(r"^    (.+)$", README.read_text(), re.MULTILINE)
    assert commands == [FIRST, SECOND]
    assert SECOND in (REPOSITORY / ".ci" / "run").read_text()


def test_the_readme_is_one_screen() -> None:
    assert len(README.read_text().splitlines()) <= 70


def test_every_page_is_found_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(docs/([^)#]+)\)", README.read_text()))
    assert linked >= {page.name for page in DOCS.glob("*.md")}


def test_the_options_that_are_documented_are_those_that_there_are() -> None:
    page = (DOCS / "running.md").read_text()
    cells = re.findall(r"^\| (.*?) \|", page, re.MULTILINE)
    options = {option for cell in cells for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", cell)}
    existing = {
        option for action in parser()._actions if action.help != "==SUPPRESS==" for option in action.option_strings
    }
    assert options - {"-h"} == existing - {"-h"}


def test_the_unit_file_is_one() -> None:
    ((_, text),) = blocks("ini")
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    assert unit["Service"]["Type"] == "notify"
    drain = int(re.search(r"--drain-time-s (\d+)", unit["Service"]["ExecStart"])[1])  # type: ignore[index]
    assert int(unit["Service"]["TimeoutStopSec"]) > drain
    parser().parse_args(unit["Service"]["ExecStart"].split()[1:])


def test_modules_named_in_the_life_of_a_request_exist() -> None:
    text = (DOCS / "life-of-a-request.md").read_text()
    named = re.findall(r"`((?:\w+/)+(?:\w+\.py)?)`", text)
    assert len(named) > 15
    for name in named:
        assert (REPOSITORY / "sidecar" / name).exists() or (REPOSITORY / name).exists(), name
    for file, attribute in (("http/stream.py", "begin"), ("http/filtered_stream.py", "reply"), ("http/stream.py", "_over"),
                            ("http/stream.py", "send_head"), ("router/upstream_request.py", "_accept")):  # fmt: skip
        assert f".{attribute}`" in text
        assert f"def {attribute}(" in (REPOSITORY / "sidecar" / file).read_text()


def test_the_changelog_has_the_version_or_something_unreleased() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[Unreleased\]$", text, re.MULTILINE) or f"## [{__version__}]" in text
