"""The command line: what it lists, what it refuses, and that it loads no more than it needs."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from roomtape_service.cli.main import COMMANDS, main
from roomtape_service.readiness import EXIT_UNUSABLE
from roomtape_service.settings import FIELDS
from roomtape_service.settings_sample import sample


def test_every_command_of_the_table_is_there() -> None:
    for name, command in COMMANDS.items():
        module = importlib.import_module(f"roomtape_service.cli.{command.module}")
        assert callable(module.add_arguments), name
        assert callable(module.run), name


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert name in shown
        assert command.help in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert re.fullmatch(r"roomtape \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize("arguments", [[], ["nope"], ["serve", "--nope"], ["serve", "--listen"]])
def test_what_is_no_command_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: roomtape" in capsys.readouterr().err


def test_serve_has_a_flag_for_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    shown = capsys.readouterr().out
    for name in FIELDS:
        assert f"--{name.replace('_', '-')} " in shown


def test_serve_lists_all_problems_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_dir = tmp_path / "data"
    arguments = [
        "serve",
        "--data-dir",
        str(data_dir),
        "--listen",
        "0.0.0.0:7400",
        "--http-listen",
        "0.0.0.0:7401",
    ]
    assert main(arguments) == EXIT_UNUSABLE
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 3
    assert "127.0.0.1" in shown.err
    assert main([*arguments, "--json"]) == EXIT_UNUSABLE
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 2
    assert not data_dir.exists()


def test_serve_prints_a_sample(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--sample"]) == 0
    assert capsys.readouterr().out == sample()


def test_a_data_folder_that_can_not_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    code = subprocess.run(
        [sys.executable, "-m", "roomtape_service.cli.main", "serve", "--data-dir", str(blocked / "data")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert code.returncode == EXIT_UNUSABLE
    assert "data_dir: " in code.stderr
    assert "Traceback" not in code.stderr


def test_the_supervisor_loads_no_grpc() -> None:
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, roomtape_service.cli.serve; print([m for m in sys.modules if 'grpc' in m])",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout == "[]\n"
