"""``python -m sidecar explain``: what would become of a request, by a configuration file or by a sidecar that runs."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from sidecar.config.problems import ConfigurationError
from sidecar.core.explanation import Step, written
from sidecar.core.question import Question, question_of
from sidecar.server import Server

_PATIENCE = 10.0


def parser() -> argparse.ArgumentParser:
    """The options of the subcommand; those that say who asks are named as in ``/explain``."""
    made = argparse.ArgumentParser(
        "sidecar explain",
        description="Tell what would become of a request: listener, filter chain, policies, routes, cluster, and of each that "
        "is passed over the first condition that fails. Nothing is sent.",
        allow_abbrev=False,
    )
    add = made.add_argument
    source = made.add_mutually_exclusive_group(required=True)
    source.add_argument("-c", "--config", metavar="FILE", help="a bootstrap, YAML or JSON, whose resources are static")
    source.add_argument(
        "--admin", metavar="HOST:PORT", help="ask the sidecar that runs, at its administration interface"
    )
    add("method", help="GET, POST, ...")
    add("url", help="http://HOST:PORT/PATH")
    add("-H", "--header", action="append", default=[], metavar="NAME:VALUE", help="a header; may be repeated")
    add(
        "--peer", default="", metavar="SPIFFE-ID", help="the identity in the client's certificate: it speaks mutual TLS"
    )
    add("--jwt", metavar="FILE", help="a file with a token, sent as Authorization: Bearer")
    add("--to", default="", metavar="IP:PORT", help="where the client connects to, if not where the URL says")
    add("--source", default="127.0.0.1", metavar="IP", help="the client's address; 127.0.0.1 by default")
    add("--alpn", default="", metavar="NAMES", help="what a TLS client offers, with commas")
    add("--sni", default="", metavar="NAME", help="the server name that a TLS client sends, if not the URL's host")
    add("--direction", default="", choices=("", "inbound", "outbound"), help="which of the listeners of one address")
    add("--http2", action="store_true", help="the request comes by HTTP/2")
    add("--format", default="text", choices=("text", "json"))
    return made


def main(arguments: list[str]) -> int:
    """Run the subcommand: 0 if the request would go on to a cluster, 3 if it would end before, 1 or 2 for what is wrong."""
    options = parser().parse_args(arguments)
    headers = list(options.header)
    if options.jwt is not None:
        try:
            with open(options.jwt, encoding="ascii") as file:
                headers.append(f"authorization: Bearer {file.read().strip()}")
        except (OSError, UnicodeError) as error:
            print(f"--jwt {options.jwt}: {error}", file=sys.stderr)
            return 1
    who = {name: getattr(options, name) for name in ("to", "source", "peer", "alpn", "direction", "http2", "sni")}
    try:
        question = question_of(options.method, options.url, headers, **who)
        if options.admin is None:
            steps = asyncio.run(_by_file(options.config, question))
        else:
            steps = _by_admin(options.admin, options.method, options.url, headers, who)
    except (ConfigurationError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if options.format == "json":
        print(json.dumps([step.as_json() for step in steps], default=str))
    else:
        print(written(steps), end="")
    return 0 if steps and steps[-1].outcome == "taken" else 3


async def _by_file(path: str, question: Question) -> list[Step]:
    """Everything is made as for serving; nothing is bound, and nobody is asked."""
    server = Server(path)
    if server.bootstrap.dynamic_resources is not None:
        admin = server.bootstrap.admin
        where = "HOST:PORT" if admin is None or admin.address is None else str(admin.address)
        raise ValueError(
            f"{path}: most of this configuration is discovered: ask the sidecar that runs, with --admin {where}"
        )
    return await server.explain(question)


def _by_admin(admin: str, method: str, url: str, headers: list[str], who: dict[str, Any]) -> list[Step]:
    query = [("method", method), ("url", url), ("format", "json"), *(("header", one) for one in headers)]
    query += [(name, "true" if value is True else value) for name, value in who.items() if value]
    asked = f"http://{admin}/explain?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(asked, timeout=_PATIENCE) as answer:
            found = json.load(answer)
    except urllib.error.HTTPError as error:
        raise ValueError(error.read().decode("utf-8", "replace").strip()) from None
    except urllib.error.URLError as error:
        raise OSError(f"--admin {admin}: {error.reason}") from None
    return [Step(**{**one, "details": tuple(one["details"])}) for one in found]
