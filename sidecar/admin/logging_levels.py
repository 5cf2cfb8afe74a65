"""/logging: the levels of the process's loggers, under the names of their stages."""

from __future__ import annotations

import logging
from typing import Final

from sidecar.admin.page import Page, text

_ROOT: Final = "sidecar"
_MAIN: Final = "main"
"""What Envoy calls the logger of the server itself; here, the one that all others inherit from."""

_LEVELS: Final = {
    "trace": 5,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "off": logging.CRITICAL + 10,
}
_USAGE: Final = (
    "\nusage: /logging?<name>=<level> (change single level)\n"
    "usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)\n"
    "usage: /logging?level=<level> (change all levels)\n"
    f"levels: {' '.join(_LEVELS)} \n"
)


def logging_page(parameters: list[tuple[str, str]]) -> Page:
    """List the levels, after changing them as the parameters say. A wrong one changes nothing and gets status 400."""
    problem = _change(parameters)
    listing = "".join(f"  {name}: {_shown(logger)}\n" for name, logger in sorted(_loggers().items()))
    listing = f"active loggers:\n{listing}\n"
    return text(f"error: {problem}\n{_USAGE}{listing}", 400) if problem else text(listing)


def _loggers() -> dict[str, logging.Logger]:
    known = logging.root.manager.loggerDict
    stages = [name for name in known if name.startswith(f"{_ROOT}.")]
    loggers = {name.partition(".")[2]: logging.getLogger(name) for name in stages}
    loggers[_MAIN] = logging.getLogger(_ROOT)
    return loggers


def _shown(logger: logging.Logger) -> str:
    effective = logger.getEffectiveLevel()
    return next((name for name, level in _LEVELS.items() if effective <= level), "off")


def _change(parameters: list[tuple[str, str]]) -> str:
    """Change what is asked for; what is wrong with it, if anything."""
    if not parameters:
        return ""
    if len(parameters) > 1:
        return "invalid number of parameters"
    (name, value) = parameters[0]
    loggers = _loggers()
    if name in ("level", "paths") and not value:
        return ""
    if name == "level":
        changes = dict.fromkeys(loggers, value)
    elif name == "paths":
        changes = {}
        for pair in value.split(","):
            logger, _, level = pair.partition(":")
            if not logger or not level:
                return "empty logger name or empty logger level"
            changes[logger] = level
    else:
        changes = {name: value}
    for logger, level in changes.items():
        if level not in _LEVELS:
            return "unknown logger level"
        if logger not in loggers:
            return "unknown logger name"
    for logger, level in changes.items():
        loggers[logger].setLevel(_LEVELS[level])
    return ""
