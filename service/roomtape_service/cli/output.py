"""What a command prints: tables and lines for people, or one JSON object a line for programs."""

import json
import sys
from collections.abc import Mapping, Sequence

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table

__all__ = ["Output", "new_table"]

# Without a terminal nothing is gained by breaking lines, and programs that read lines lose.
_UNBROKEN_COLUMNS = 10_000


class Output:
    """Where a command's results go: standard output; notes and errors go to standard error."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = _console(to_stderr=False)
        self.notes = _console(to_stderr=True)

    def show(self, message: Message, text: str | Table) -> None:
        """One result: `message` for programs, `text` for people."""
        if self.as_json:
            self.show_json(message)
        else:
            self.console.print(text, soft_wrap=isinstance(text, str))

    def show_all(self, messages: Sequence[Message], table: Table, nothing: str) -> None:
        """A list of results: a line each for programs; for people a table, or that there is `nothing`."""
        if self.as_json:
            for message in messages:
                self.show_json(message)
        elif messages:
            self.console.print(table)
        else:
            self.note(nothing)

    def show_json(self, message: Message | Mapping[str, object]) -> None:
        """One line: the proto JSON of a message, in which 64-bit numbers are strings; or an object as it is."""
        if isinstance(message, Message):
            line = MessageToJson(message, indent=None, ensure_ascii=False)
        else:
            line = json.dumps(message, ensure_ascii=False)
        print(line, flush=True)

    def note(self, text: str) -> None:
        """Something for people that is no result; programs don't get it."""
        if not self.as_json:
            self.notes.print(text, style="dim", soft_wrap=True)

    def error(self, text: str, facts: Mapping[str, object]) -> None:
        """Why the command failed, in one line."""
        if self.as_json:
            print(json.dumps({"error": facts}, ensure_ascii=False), file=sys.stderr, flush=True)
        else:
            self.notes.print(f"roomtape: {text}", style="red", soft_wrap=True)


def new_table(*columns: str, right: Sequence[str] = ()) -> Table:
    """An empty table; the columns in `right` are numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def _console(*, to_stderr: bool) -> Console:
    stream = sys.stderr if to_stderr else sys.stdout
    width = None if stream.isatty() else _UNBROKEN_COLUMNS
    # What ids hold is text, whatever brackets and colons they have.
    return Console(stderr=to_stderr, width=width, markup=False, emoji=False, highlight=False)
