"""One log: structured lines on stderr, ours and those of libraries alike.

Each line is written by one system call, so that the lines of several processes on one stderr do not mix.
"""

import json
import logging
import os
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from roomtape_service.observability.context import request_id

__all__ = ["LINE_TEXT_CHARACTERS", "configure"]

STDERR = 2

# Ids and texts of callers are cut to this: nobody may fill the disk by one call.
LINE_TEXT_CHARACTERS = 4096

# Everything that moves a terminal's cursor or ends a line: what a caller named must not forge lines.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure(level: str, form: str, process: str, descriptor: int = STDERR) -> None:
    """Sets up all logging of this process.

    `level` is debug, info, warning or error; `form` is console or json; `process` names it in every line. Libraries
    that use the standard module are heard from warning on, and from info on at level debug.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        _adder("process", process),
        _add_request_id,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render = _json() if form == "json" else _console(os.isatty(descriptor))
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _Lines(descriptor),
        cache_logger_on_first_use=True,
    )
    handler = _Handler(descriptor)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO if number <= logging.DEBUG else max(number, logging.WARNING))


class _Lines:
    """Writes lines; what can't be written, because nobody reads any more, is dropped."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def msg(self, line: str) -> None:
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        with suppress(OSError):
            os.write(self._descriptor, data)

    debug = info = warning = error = critical = exception = msg


class _Handler(logging.Handler):
    """Lines of libraries, on the same way."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._lines = _Lines(descriptor)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.msg(self.format(record))


def _adder(key: str, value: str) -> Processor:
    def add(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
        line[key] = value
        return line

    return add


def _add_request_id(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    current = request_id.get(None)
    if current is not None:
        line.setdefault("request_id", current)
    return line


def _json() -> list[Processor]:
    def dump(line: EventDict, **_arguments: Any) -> str:
        return json.dumps(line, default=repr, ensure_ascii=False, separators=(",", ":"))

    return [_cut, structlog.processors.format_exc_info, structlog.processors.JSONRenderer(dump)]


def _console(colors: bool) -> list[Processor]:
    renderer = structlog.dev.ConsoleRenderer(
        # Without the values of variables, which may be secrets.
        colors=colors,
        exception_formatter=structlog.dev.plain_traceback,
        pad_event_to=12,
    )
    return [_cut, _visible, renderer]


def _cut(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    for key, value in line.items():
        if isinstance(value, str) and len(value) > LINE_TEXT_CHARACTERS:
            line[key] = value[:LINE_TEXT_CHARACTERS] + "…"
    return line


def _visible(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    for key, value in line.items():
        if isinstance(value, str) and not value.isprintable():
            line[key] = _CONTROL.sub(_escaped, value)
    return line


_escaped: Callable[[re.Match[str]], str] = lambda match: repr(match.group())[1:-1]  # noqa: E731
