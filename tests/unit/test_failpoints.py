"""Failpoints: the set is that of the code, and what they do to a process."""

import ast
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from roomtape_service.failpoints import AFTER, COMMITS, FAILPOINTS

ROOT = Path(__file__).parents[2] / "service" / "roomtape_service"

# What is renamed, removed or written where no crash can hurt: files of the moment, or of commands that people run.
WITHOUT = {
    "recording/front/pool.py": "sockets of processes that are gone; what is kept has its failpoints",
    "cli": "commands hand out files; nobody reads them after a crash",
    "locks.py": "locks are taken, not made",
    "storage/secrets.py": "the key is made once, before anything is kept",
    "supervisor.py": "sockets and settings of processes that are gone",
    "failpoints.py": "itself",
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text("utf-8"))


def name_of(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".")


def calls_with_scope(tree: ast.Module) -> Iterator[tuple[list[str], ast.Call]]:
    """All calls, with the names of the classes and functions around them."""

    def walk(node: ast.AST, scope: list[str]) -> Iterator[tuple[list[str], ast.Call]]:
        for child in ast.iter_child_nodes(node):
            inner = scope
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                inner = [*scope, child.name]
            if isinstance(child, ast.Call):
                yield scope, child
            yield from walk(child, inner)

    yield from walk(tree, [])


def is_database(call: ast.Call) -> bool:
    function = call.func
    return (
        isinstance(function, ast.Attribute)
        and function.attr == "write"
        and isinstance(function.value, ast.Name | ast.Attribute)
        and (function.value.id if isinstance(function.value, ast.Name) else function.value.attr)
        in ("database", "_database")
    )


def commit_name(path: str, scope: list[str], call: ast.Call) -> str | None:
    """As `Database.write` finds it; None where it is made of more than what stands here."""
    for keyword in call.keywords:
        if keyword.arg == "name":
            return str(keyword.value.value) if isinstance(keyword.value, ast.Constant) else None
    work = call.args[0]
    assert isinstance(work, ast.Name), f"{path}:{call.lineno}: give the unit of work a `name`"
    return ".".join([name_of(path), *scope, work.id])


def test_each_commit_is_declared_and_each_declared_one_is_there() -> None:
    source = {path: tree for path, tree in modules() if not path.startswith("database/")}
    found = set()
    for path, tree in source.items():
        for scope, call in calls_with_scope(tree):
            if is_database(call) and (name := commit_name(path, scope, call)) is not None:
                found.add(name)
    # Names that are made of parts: the parts are there.
    rest = set(COMMITS) - found
    made = {name for name in rest if _is_said(name)}
    assert found - set(COMMITS) == set(), "declare these in failpoint_names.py"
    assert rest - made == set(), "nobody commits these any more"


def _is_said(name: str) -> bool:
    text = (ROOT / _file_of(name)).read_text("utf-8")
    return f'"{name}"' in text or f'"{name.rpartition(".")[2]}"' in text


def _file_of(name: str) -> str:
    parts = name.split(".")
    while parts and not (ROOT / ("/".join(parts) + ".py")).exists():
        parts.pop()
    assert parts, f"{name} names no module"
    return "/".join(parts) + ".py"


def test_each_failpoint_is_hit_somewhere_and_each_hit_is_declared() -> None:
    found = set()
    for _, tree in modules():
        for _, call in calls_with_scope(tree):
            function = call.func
            if isinstance(function, ast.Attribute) and function.attr == "hit" and call.args:
                for each in ast.walk(call.args[0]):
                    if isinstance(each, ast.Constant) and isinstance(each.value, str):
                        found.add(each.value)
    assert found - set(FAILPOINTS) == set(), "declare these in failpoint_names.py"
    assert set(FAILPOINTS) - found == set(), "nobody hits these"


RISKY = {
    "rename",
    "unlink",
    "rmdir",
    "rmtree",
    "replace",
    "complete_multipart_upload",
    "upload_part",
    "put_object",
}


def test_what_renames_removes_and_sends_has_a_failpoint() -> None:
    bare = []
    for path, tree in modules():
        if any(path == each or path.startswith(f"{each}/") for each in WITHOUT):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            calls = [call for _, call in calls_with_scope(ast.Module([node], []))]
            risky = [call for call in calls if _is_risky(call)]
            has = any(isinstance(c.func, ast.Attribute) and c.func.attr == "hit" for c in calls)
            if risky and not has:
                bare += [f"{path}:{call.lineno}" for call in risky]
    assert sorted(set(bare)) == [], "put failpoints.hit(…) before these"


def _is_risky(call: ast.Call) -> bool:
    function = call.func
    if not isinstance(function, ast.Attribute) or function.attr not in RISKY:
        return False
    if function.attr == "replace":
        # Not that of strings, dataclasses and times.
        return isinstance(function.value, ast.Name) and function.value.id == "os"
    # Of an attempt that failed: the file was renamed, or is none.
    is_failed = isinstance(function.value, ast.Name) and function.value.id == "part"
    return not (function.attr == "unlink" and is_failed)


PROGRAM = """
import sys
from pathlib import Path
from roomtape_service import failpoints
failpoints.arm(Path(sys.argv[1]))
for _ in range(4):
    try:
        failpoints.hit("disk.delete")
    except OSError as error:
        print(error.errno, flush=True)
    else:
        print("went on", flush=True)
"""


def start(file: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(file)], stdout=subprocess.PIPE, text=True)


def arm(folder: Path, **arm: object) -> Path:
    file = folder / "failpoints.json"
    file.write_text(json.dumps({"log": str(folder / "hits"), "arms": [{"name": "disk.delete", **arm}]}))
    return file


def test_a_kill_comes_at_its_hit_and_only_once_whoever_comes_after(tmp_path: Path) -> None:
    file = arm(tmp_path, action="kill", at=2)
    with start(file) as first:
        assert first.communicate()[0] == "went on\n"
    assert first.returncode == -signal.SIGKILL
    with start(file) as second:
        assert second.communicate()[0] == "went on\n" * 4
    lines = (tmp_path / "hits").read_text().splitlines()
    assert [line.split()[2:] for line in lines] == [[], ["kill"], [], [], [], []]


def test_an_error_is_raised_as_often_as_it_was_wanted(tmp_path: Path) -> None:
    with start(arm(tmp_path, action="error", errno="ENOSPC", times=2)) as process:
        assert process.communicate()[0] == "28\n28\nwent on\nwent on\n"


def test_a_pause_lasts_until_a_file_is_there(tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    with start(arm(tmp_path, action="pause", at=3, until=str(go_on))) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["went on\n"] * 2
        while "pause" not in (tmp_path / "hits").read_text():
            time.sleep(0.01)
        assert process.poll() is None
        go_on.touch()
        assert process.stdout.read() == "went on\n" * 2


@pytest.mark.parametrize(
    "arm",
    [
        {"name": "nowhere", "action": "kill"},
        {"name": "disk.delete", "action": "explode"},
        {"name": "disk.delete", "action": "error", "errno": "ENOTHING"},
        {"name": f"commit:{next(iter(COMMITS))}{AFTER}", "action": "error"},
        {"action": "kill"},
    ],
)
def test_a_file_that_says_nothing_sensible_is_refused(tmp_path: Path, arm: dict[str, str]) -> None:
    file = tmp_path / "failpoints.json"
    file.write_text(json.dumps({"log": os.devnull, "arms": [arm]}))
    command = [sys.executable, "-m", "roomtape_service.cli.main", "serve", "--json"]
    command += [f"--failpoints-file={file}", f"--data-dir={tmp_path / 'data'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    [problem] = json.loads(done.stdout)["problems"]
    assert problem.startswith("failpoints_file: ")


def test_other_machines_and_failpoints_do_not_go_together(tmp_path: Path) -> None:
    file = arm(tmp_path, action="kill")
    command = [sys.executable, "-m", "roomtape_service.cli.main", "serve", "--json", "--listen=0.0.0.0:0"]
    command += [f"--failpoints-file={file}", f"--data-dir={tmp_path / 'data'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "failpoints_file: it is for tests; unset it, or listen on 127.0.0.1" in done.stdout
