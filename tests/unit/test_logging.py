"""Lines of the log: whole, structured, and nothing that a caller could forge or fill a disk with."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from roomtape_service.observability.context import request_id
from roomtape_service.observability.logging import LINE_TEXT_CHARACTERS, configure

SECRET = "hunter2"


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[tuple[int, Callable[[], str]]]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield descriptor, lambda: (tmp_path / "log").read_text()
    os.close(descriptor)
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def test_a_json_line_says_who_when_what_and_for_which_request(
    log_file: tuple[int, Callable[[], str]],
) -> None:
    descriptor, read = log_file
    configure("info", "json", "node", descriptor)
    log = structlog.get_logger("any")
    log.debug("left out")
    token = request_id.set("r-1")
    log.info("event", user_id="录\n😀", path=Path("/x"))
    request_id.reset(token)
    log.warning("later")
    lines: list[dict[str, Any]] = [json.loads(line) for line in read().splitlines()]
    assert lines[0].pop("timestamp").endswith("+00:00")
    assert lines[0] == {
        "event": "event",
        "level": "info",
        "process": "node",
        "request_id": "r-1",
        "user_id": "录\n😀",
        "path": "PosixPath('/x')",
    }
    assert "request_id" not in lines[1]


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_exception_is_whole_but_without_the_values_of_variables(
    log_file: tuple[int, Callable[[], str]], form: str
) -> None:
    descriptor, read = log_file
    configure("info", form, "node", descriptor)

    def fail(password: str) -> None:
        raise ValueError(f"{len(password)} characters")

    try:
        fail(SECRET)
    except ValueError as error:
        structlog.get_logger().error("failed", exc_info=error)
    assert "ValueError: 7 characters" in read()
    assert "in fail" in read()
    assert SECRET not in read()


def test_a_caller_can_not_forge_lines_or_fill_the_disk(log_file: tuple[int, Callable[[], str]]) -> None:
    descriptor, read = log_file
    for form in ("console", "json"):
        configure("info", form, "node", descriptor)
        log = structlog.get_logger()
        log.info("call", app_id="a\n2026 [error] forged\x1b[2J\u2028")
        log.info("call", app_id="x" * 10_000_000)
    assert read().count("\n") == 4
    assert "\x1b" not in read().split("\n")[0]
    assert len(read()) < 3 * LINE_TEXT_CHARACTERS


def test_libraries_are_heard_on_the_same_way(log_file: tuple[int, Callable[[], str]]) -> None:
    descriptor, read = log_file
    configure("info", "json", "worker-0", descriptor)
    library = logging.getLogger("a.library")
    library.info("left out")
    library.warning("something %s", "odd")
    line = json.loads(read())
    assert (line["event"], line["logger"], line["process"], line["level"]) == (
        "something odd",
        "a.library",
        "worker-0",
        "warning",
    )


def test_a_log_that_nobody_reads_harms_nobody() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    try:
        configure("info", "json", "node", write_end)
        structlog.get_logger().info("into the void")
        logging.getLogger("a.library").warning("into the void")
    finally:
        os.close(write_end)
        root.handlers, root.level = handlers, level
        structlog.reset_defaults()
