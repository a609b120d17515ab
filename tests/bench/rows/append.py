"""Events appended each second on SQLite and on PostgreSQL, against bare statements in the same transactions."""

import shutil
import statistics
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, nullcontext

import uvloop

from tests.bench import appending
from tests.bench.bench import Bench
from tests.bench.figures import Figure
from tests.support.postgres import postgres_server

__all__ = ["measure"]

_ROUNDS = 3
_ROUND_SECONDS = 2.0
_GOALS = {"sqlite": 0.1, "postgresql": 0.4}
"""Most of what is not the database's own is SQLAlchemy's and Python's, which SQLite feels more."""

_Append = Callable[[str, float], Coroutine[None, None, float]]
_Urls = Callable[[str], AbstractContextManager[str]]


def measure(bench: Bench) -> Sequence[Figure]:
    """Measures both."""
    folder = bench.folder / "append"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with postgres_server(is_durable=True) as server:
        return [
            _figure(
                "sqlite",
                appending.sqlite,
                "bare sqlite3",
                lambda name: nullcontext(f"sqlite:///{folder}/{name}.db"),
            ),
            _figure("postgresql", appending.postgres, "bare asyncpg", server.database),
        ]


def _figure(kind: str, bare: _Append, bare_name: str, urls: _Urls) -> Figure:
    rates: dict[str, list[float]] = {"ours": [], "bare": []}
    for number in range(_ROUNDS):
        for name, append in (("ours", appending.ours), ("bare", bare)):
            with urls(f"{name}_{number}") as url:
                rates[name].append(uvloop.run(append(url, _ROUND_SECONDS)))
    return Figure(
        name=f"append_{kind}",
        ours=statistics.median(rates["ours"]),
        peer=statistics.median(rates["bare"]),
        peer_name=bare_name,
        goal=_GOALS[kind],
        unit="events per second",
        lower_is_better=False,
    )
