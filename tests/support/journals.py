"""What several processes did, in order, in one file."""

import os
from pathlib import Path

__all__ = ["alive", "lines", "note"]


def note(folder: Path, who: str, what: str) -> None:
    """Appends a line; one system call, so lines of several processes do not mix."""
    descriptor = os.open(folder / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{who} {what}\n".encode())
    os.close(descriptor)


def lines(folder: Path, start: str = "") -> list[str]:
    """The lines that begin with `start`."""
    try:
        found = (folder / "journal").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [line for line in found if line.startswith(start)]


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
