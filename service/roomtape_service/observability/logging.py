"""One log: structured lines on stderr, ours and those of libraries alike.

A line costs its caller little: what it says is noted, and made into text later, with its neighbours, in one write.
Each write lets go of the interpreter's lock, which costs a busy node more than the text does.
"""

import asyncio
import atexit
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from roomtape_service.clock import NANOSECONDS
from roomtape_service.observability.context import request_id

__all__ = ["FLUSH_SECONDS", "LINE_TEXT_CHARACTERS", "configure"]

# A line may be this late. What a killed process had to say in this time is lost, warnings and errors excepted.
FLUSH_SECONDS = 0.05
MAX_WAITING_LINES = 200

# Ids and texts of callers are cut to this: nobody may fill the disk by one call.
LINE_TEXT_CHARACTERS = 4096

_STDERR = 2

# Everything that moves a terminal's cursor or ends a line: what a caller named must not forge lines.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure(level: str, form: str, process: str, descriptor: int = _STDERR) -> None:
    """Sets up all logging of this process.

    `level` is debug, info, warning or error; `form` is console or json; `process` names it in every line. Libraries
    that use the standard module are heard from warning on, and from info on at level debug.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    render = _renderer(_json() if form == "json" else _console(os.isatty(descriptor)))
    lines = _Lines(descriptor, process, render)
    structlog.configure(
        processors=[_note],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [_Handler(lines)]
    root.setLevel(logging.INFO if number <= logging.DEBUG else max(number, logging.WARNING))


class _Lines:
    """Writes lines to a descriptor; what can't be written, because nobody reads any more, is dropped."""

    def __init__(self, descriptor: int, process: str, render: Callable[[EventDict], str]) -> None:
        self._descriptor = descriptor
        self._process = process
        self._render = render
        self._lock = threading.Lock()
        self._waiting: list[EventDict] = []
        atexit.register(self.flush)

    def later(self, line: EventDict) -> None:
        """Writes within `FLUSH_SECONDS` under an event loop, else at once."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.now(line)
            return
        with self._lock:
            self._waiting.append(line)
            waiting = len(self._waiting)
        if waiting == 1:
            loop.call_later(FLUSH_SECONDS, self.flush)
        elif waiting >= MAX_WAITING_LINES:
            self.flush()

    def now(self, line: EventDict) -> None:
        """Writes at once, after what waits."""
        with self._lock:
            self._waiting.append(line)
        self.flush()

    def flush(self) -> None:
        """Writes what waits."""
        with self._lock:
            lines, self._waiting = self._waiting, []
            if lines:
                with suppress(OSError):
                    os.write(self._descriptor, b"".join(map(self._encoded, lines)))

    msg = debug = info = later
    warning = error = critical = exception = now

    def _encoded(self, line: EventDict) -> bytes:
        line["process"] = self._process
        try:
            text = self._render(line)
        except Exception as error:
            # One odd value must not take the other lines with it.
            text = repr({"event": line.get("event"), "unprintable": repr(error)})
        return text.encode("utf-8", "backslashreplace") + b"\n"


class _Handler(logging.Handler):
    """Lines of libraries, on the same way."""

    def __init__(self, lines: _Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        line: EventDict = {"event": record.getMessage(), "logger": record.name}
        if record.exc_info:
            line["exc_info"] = record.exc_info
        (noted,), _ = _note(None, record.levelname.lower(), line)
        write = self._lines.now if record.levelno >= logging.WARNING else self._lines.later
        write(noted)


def _note(_logger: WrappedLogger, method: str, line: EventDict) -> tuple[tuple[EventDict], dict[str, Any]]:
    """What can't be known later any more."""
    line["level"] = method
    line["timestamp"] = time.time_ns()
    current = request_id.get(None)
    if current is not None:
        line.setdefault("request_id", current)
    if line.get("exc_info") is True:
        line["exc_info"] = sys.exc_info()
    return (line,), {}


def _renderer(processors: list[Processor]) -> Callable[[EventDict], str]:
    def render(line: EventDict) -> str:
        line["timestamp"] = datetime.fromtimestamp(line["timestamp"] / NANOSECONDS, UTC).isoformat()
        rendered: Any = line
        for processor in processors:
            rendered = processor(None, line["level"], rendered)
        return str(rendered)

    return render


def _json() -> list[Processor]:
    encode = json.JSONEncoder(default=repr, ensure_ascii=False, separators=(",", ":")).encode

    def dump(line: EventDict, **_arguments: Any) -> str:
        return encode(line)

    return [_cut, structlog.processors.format_exc_info, structlog.processors.JSONRenderer(dump)]


def _console(colors: bool) -> list[Processor]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors,
        # Without the values of variables, which may be secrets.
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


def _escaped(match: re.Match[str]) -> str:
    return repr(match.group())[1:-1]
