"""CPU time and memory of processes with all that they started."""

import os
from collections.abc import Iterable

import psutil

__all__ = ["MIB", "cpu_seconds", "family", "memory_mib"]

MIB = 1024 * 1024


def family(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it, those that run now."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of the processes and of their descendants, those included that have ended."""
    total = 0.0
    for pid in pids:
        for process in family(pid):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                # It ended between the two looks; its parent has its time.
                continue
            total += times.user + times.system + times.children_user + times.children_system
    return total


def memory_mib(pid: int) -> float:
    """Memory of a process and its descendants, shared pages counted once: PSS where there is one, else RSS."""
    if os.path.exists("/proc/self/smaps_rollup"):
        return sum(_pss_bytes(process.pid) for process in family(pid)) / MIB
    return sum(process.memory_info().rss for process in family(pid)) / MIB


def _pss_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
        return next(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Pss:"))
