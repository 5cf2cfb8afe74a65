"""Access logs: which entries (`log_filters`), how (`formatter`, `json_format`), and where to (`log_file`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from sidecar.config.access_log import AccessLog, FileAccessLog, StdoutAccessLog
from sidecar.config.core_types import SubstitutionFormatString
from sidecar.core.stream_info import StreamInfo
from sidecar.core.worker import Worker

from .formatter import DEFAULT_LOG_FORMAT, compile_text
from .json_format import compile_json
from .log_file import LogFiles
from .log_filters import compile_filter
from .operators.base import NO_CONTEXT, FormatContext

Logger: TypeAlias = Callable[[StreamInfo], None]


def compile_format(format: SubstitutionFormatString, context: FormatContext = NO_CONTEXT) -> Callable[..., bytes]:
    """A format of either kind, of a log or of a local reply, which gives its body as the second argument.

    Raises FormatError.
    """
    if format.json_format is not None:
        return compile_json(format.json_format, omit_empty_values=format.omit_empty_values, context=context)
    return compile_text(format.text_format or "", omit_empty_values=format.omit_empty_values, context=context)


def compile_access_logs(
    configs: Iterable[AccessLog], files: LogFiles, worker: Worker, context: FormatContext = NO_CONTEXT
) -> tuple[Logger, ...]:
    """What to call with each stream that has ended. Raises FormatError, and OSError for a file that does not open."""
    return tuple(_compile_access_log(config, files, worker, context) for config in configs)


def _compile_access_log(config: AccessLog, files: LogFiles, worker: Worker, context: FormatContext) -> Logger:
    sink = config.typed_config
    if isinstance(sink, FileAccessLog):
        path = sink.path
    else:
        path = "/dev/stdout" if isinstance(sink, StdoutAccessLog) else "/dev/stderr"
    if sink.log_format is None:
        render = compile_text(DEFAULT_LOG_FORMAT, context=context)
    else:
        render = compile_format(sink.log_format, context)
    write = files.open(path).write
    if config.filter is None:

        def log(stream: StreamInfo) -> None:
            write(render(stream))

        return log
    wanted = compile_filter(config.filter, worker.random_for("access log"), context.access_log_type)

    def log_wanted(stream: StreamInfo) -> None:
        if wanted(stream):
            write(render(stream))

    return log_wanted
