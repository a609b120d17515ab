"""Arguments that several commands share."""

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from google.protobuf.descriptor import EnumDescriptor

from roomtape_service.cli import enums

__all__ = [
    "DEFAULT_SERVER",
    "EXIT_CODES",
    "add_actions",
    "add_client_arguments",
    "choice",
    "comma_separated",
    "read_label",
    "reader",
]

DEFAULT_SERVER = "127.0.0.1:7400"

EXIT_CODES = (
    "Exit codes: 0 done; 1 refused or failed, the reason is on standard error; 2 no such command line; "
    "3 the server can't be reached or does not answer; 130 Ctrl-C."
)

AddArguments = Callable[[argparse.ArgumentParser], None]


def add_actions(parser: argparse.ArgumentParser, actions: Mapping[str, tuple[str, AddArguments]]) -> None:
    """Gives a command its actions: for each a line of help, and what adds its arguments.

    The chosen one is `action` of the parsed arguments.
    """
    subparsers = parser.add_subparsers(title="actions", dest="action", required=True, metavar="action")
    for name, (help_text, add_arguments) in actions.items():
        subparser = subparsers.add_parser(
            name,
            help=help_text,
            description=help_text,
            allow_abbrev=False,
            formatter_class=parser.formatter_class,
        )
        add_arguments(subparser)


def add_client_arguments(parser: argparse.ArgumentParser, *, app: bool = True) -> None:
    """How to reach a server, which application is meant, and how to print."""
    group = parser.add_argument_group("server")
    environment = os.environ.get
    group.add_argument(
        "--server",
        metavar="HOST:PORT",
        default=environment("ROOMTAPE_SERVER") or DEFAULT_SERVER,
        help=f"where the server is; default: ROOMTAPE_SERVER or {DEFAULT_SERVER}",
    )
    if app:
        group.add_argument(
            "--app",
            metavar="APP",
            default=environment("ROOMTAPE_APP"),
            required=not environment("ROOMTAPE_APP"),
            help="id of the application; default: ROOMTAPE_APP",
        )
    # A key on the command line is seen by everyone on the machine, so its default is the environment.
    group.add_argument("--api-key", metavar="KEY", help="default: ROOMTAPE_API_KEY or none")
    group.add_argument("--tls", action="store_true", help="speak TLS; default: plain text")
    group.add_argument(
        "--ca", type=Path, metavar="FILE", help="who may sign the server's certificate, as PEM; means --tls"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object a line for programs, as in the contract"
    )
    parser.epilog = EXIT_CODES


def reader(read: Callable[[str], object]) -> Callable[[str], object]:
    """A `type` of argparse out of something that raises ValueError; its text is shown to the user."""

    def convert(text: str) -> object:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def choice(enum: EnumDescriptor) -> Callable[[str], object]:
    """A `type` of argparse: one value of an enum by its name."""
    return reader(lambda text: enums.number(enum, text))


def comma_separated(read: Callable[[str], object]) -> Callable[[str], object]:
    """A `type` of argparse: several of them, with commas between."""
    return reader(lambda text: [read(each) for each in text.split(",")])


def read_label(text: str) -> tuple[str, str]:
    """A label's key and value. Raises ValueError."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ValueError(f"{text!r} is no label; write KEY=VALUE")
    return key, value
