"""`roomtape`: finds the subcommand, and loads no other."""

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Protocol, cast

__all__ = ["COMMANDS", "Command", "Subcommand", "main"]


class Subcommand(Protocol):
    """What the module of a subcommand offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the subcommand's own arguments."""
        ...

    def run(self, arguments: argparse.Namespace) -> int:
        """Does it; returns the exit code."""
        ...


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand: its module below this package, and one line of help."""

    module: str
    help: str


COMMANDS: Mapping[str, Command] = {
    "serve": Command("serve", "run the service on this machine"),
    "demo": Command("demo", "record three speakers here, and check the files"),
    "apps": Command("apps", "create, show and change applications"),
    "rooms": Command("rooms", "open, close and show rooms"),
    "publish": Command("publish", "put audio files into a room, each as a user of its own"),
    "record": Command("record", "start, stop, change and show recording tasks"),
    "watch": Command("watch", "show what happens, as it happens"),
    "events": Command("events", "list what happened"),
    "webhooks": Command("webhooks", "send events to receivers, and receive them here"),
    "files": Command("files", "find, download and play what was recorded"),
    "verify": Command("verify", "prove a task's files in the store against its manifest"),
    "storage": Command("storage", "check whether an application's store works"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    # gRPC's core reads it when it is imported, and would write to our standard error.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="roomtape", description="Records rooms.", allow_abbrev=False, formatter_class=_Wide
    )
    parser.add_argument("--version", action="version", version=f"roomtape {_version()}")
    subparsers = parser.add_subparsers(title="commands", dest="command", required=True, metavar="command")
    chosen = next((word for word in given if not word.startswith("-")), None)
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=command.help, description=command.help, allow_abbrev=False, formatter_class=_Wide
        )
        if name == chosen:
            _load(command).add_arguments(subparser)
    parsed = parser.parse_args(given)
    return _load(COMMANDS[parsed.command]).run(parsed)


class _Wide(argparse.HelpFormatter):
    """Names and texts on one line where they fit."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36)


def _load(command: Command) -> Subcommand:
    return cast("Subcommand", importlib.import_module(f"roomtape_service.cli.{command.module}"))


def _version() -> str:
    return metadata.version("roomtape-service")


if __name__ == "__main__":
    sys.exit(main())
