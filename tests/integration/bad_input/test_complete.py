"""Every RPC and every ErrorReason of the contract has a case; one without fails here."""

import ast
import importlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.integration.bad_input.cases import COVERED, TOLD
from tests.integration.bad_input.contract import allowed_codes, listed_errors, reasons, requests_with_id, rpcs
from tests.integration.bad_input.replays import REPLAYS

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

ELSEWHERE: Mapping[tuple[str, str], str] = {
    ("FileService.GetManifest", "MANIFEST_NOT_FOUND"): (
        "tests/integration/test_manifest_calls.py::test_before_it_is_written"
    ),
    ("WatchService.WatchEvents", "EVENT_HISTORY_COMPACTED"): (
        "tests/integration/test_watch.py::test_history_that_was_compacted_is_a_named_error"
    ),
    ("WatchService.ListEvents", "EVENT_HISTORY_COMPACTED"): (
        "tests/integration/test_list_events.py::test_pages_end_where_the_history_was_compacted"
    ),
    ("WatchService.WatchEvents", "STREAM_STALLED"): (
        "tests/integration/test_watch.py::test_a_watcher_that_reads_nothing_is_let_go_and_slows_nobody"
    ),
}
"""Cases of calls that need a log or a watcher of their own, where such tests are."""


@pytest.fixture(scope="module", autouse=True)
def every_module() -> None:
    """Cases are entered into the book when their module is imported."""
    for module in sorted(HERE.glob("test_*.py")):
        importlib.import_module(f"tests.integration.bad_input.{module.stem}")


def covered() -> set[tuple[str, str]]:
    return COVERED | set(ELSEWHERE)


@pytest.mark.parametrize("rpc", rpcs())
def test_every_call_has_a_case(rpc: str) -> None:
    # Keys and draining are the same for all; each call must also refuse something of its own.
    own = {reason for call, reason in COVERED if call == rpc} - {
        "API_KEY_INVALID",
        "APPLICATION_FORBIDDEN",
        "DRAINING",
    }
    assert own


@pytest.mark.parametrize("reason", sorted(reasons()))
def test_every_reason_has_a_case(reason: str) -> None:
    if allowed_codes()[reason]:
        assert reason in {each for _, each in covered()}
    else:
        assert reason in TOLD


@pytest.mark.parametrize("rpc", rpcs())
def test_every_error_that_a_call_names_has_a_case(rpc: str) -> None:
    assert {(rpc, reason) for reason in listed_errors()[rpc]} <= covered()


def test_every_request_id_is_replayed() -> None:
    assert set(REPLAYS) == set(requests_with_id())


@pytest.mark.parametrize(("rpc", "reason"), ELSEWHERE)
def test_a_case_elsewhere_is_there(rpc: str, reason: str) -> None:
    path, _, name = ELSEWHERE[rpc, reason].partition("::")
    source = (ROOT / path).read_text("utf-8")
    functions = {
        node.name: node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert reason in (ast.get_source_segment(source, functions[name]) or "")


def test_the_book_of_the_contract_is_whole() -> None:
    assert allowed_codes().keys() == reasons()
    assert listed_errors().keys() == rpcs().keys()
