"""`python -m tests.bench [NAME]`: measures all rows or one, prints a table, and writes `.bench/latest.jsonl`."""

import argparse
import fcntl
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tests.bench.bench import Bench
from tests.bench.figures import Figure, table
from tests.bench.material import Material
from tests.bench.rows import ROWS

_FOLDER = Path(__file__).resolve().parents[2] / ".bench"
_WINDOW_SECONDS = 6.0
# For logs, where no terminal says how wide it is.
_LOG_COLUMNS = 140


def main() -> int:
    """Returns 0 when all was measured, whatever came of it; 1 when something could not be measured."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("only", nargs="?", choices=sorted(ROWS), metavar="NAME", help=", ".join(ROWS))
    parser.add_argument("--window", type=float, default=_WINDOW_SECONDS, help="seconds of each measurement")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else _LOG_COLUMNS)
    _FOLDER.mkdir(exist_ok=True)
    with (_FOLDER / "lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("Another bench runs here; two at once would measure each other.")
            return 1
        return _run([arguments.only] if arguments.only else list(ROWS), arguments.window, console)


def _run(names: Sequence[str], window_seconds: float, console: Console) -> int:
    material = Material(_FOLDER / "material")
    material.make()
    bench = Bench(_FOLDER / "run", material, window_seconds)
    figures: list[Figure] = []
    failed = False
    with (_FOLDER / "latest.jsonl").open("w", encoding="utf-8") as lines:
        for name in names:
            console.print(f"{name} …", style="dim")
            try:
                measured = ROWS[name](bench)
            except Exception:
                # The other rows are still worth their while.
                console.print_exception()
                failed = True
                continue
            figures += measured
            lines.writelines(figure.line() + "\n" for figure in measured)
            lines.flush()
    console.print(table(figures))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
