"""What is measured, as a line of JSON and as a row of a table."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.table import Table

__all__ = ["Figure", "table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured figure. With a peer the goal is one of the ratio, without a peer one of `ours`."""

    name: str
    ours: float
    peer: float | None
    peer_name: str | None
    goal: float
    unit: str
    lower_is_better: bool

    @property
    def ratio(self) -> float | None:
        """Ours to peer."""
        return None if self.peer is None else self.ours / self.peer

    @property
    def reached(self) -> bool:
        """Whether the goal is reached."""
        value = self.ours if self.ratio is None else self.ratio
        return value <= self.goal if self.lower_is_better else value >= self.goal

    def line(self) -> str:
        """One line of JSON."""
        facts = asdict(self)
        order = ("name", "ours", "peer", "peer_name", "ratio", "goal", "unit", "lower_is_better")
        return json.dumps({key: facts.get(key, self.ratio) for key in order})


def table(figures: Sequence[Figure]) -> Table:
    """All figures for people."""
    result = Table(title="ours to peer, both measured in this run")
    for heading in ("name", "unit"):
        result.add_column(heading)
    for heading in ("ours", "peer"):
        result.add_column(heading, justify="right")
    result.add_column("peer is")
    for heading in ("ratio", "goal"):
        result.add_column(heading, justify="right")
    result.add_column("")
    for figure in figures:
        result.add_row(
            figure.name,
            figure.unit,
            _text(figure.ours),
            _text(figure.peer),
            figure.peer_name or "–",
            "–" if figure.ratio is None else f"{figure.ratio:.2f}",
            f"{'≤' if figure.lower_is_better else '≥'} {figure.goal:g}",
            "[green]reached[/]" if figure.reached else "[red]missed[/]",
        )
    return result


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
