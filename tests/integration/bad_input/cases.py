"""What a case of bad input is, and the book of which calls and reasons have one."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from tests.integration.bad_input.contract import method, reasons
from tests.integration.bad_input.refusals import Expected
from tests.integration.bad_input.world import World

__all__ = ["COVERED", "TOLD", "Case", "case", "covers", "tells"]

COVERED: set[tuple[str, str]] = set()
"""Calls, as `Service.Method`, and the reasons with which a case ends them."""

TOLD: set[str] = set()
"""Reasons that a case sees in FramesRejected or in a WARNING event."""

_Test = TypeVar("_Test", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Case:
    """A unary request, or the only request of a server stream, that is refused and changes nothing."""

    rpc: str
    about: str
    request: Callable[[World], Message]
    reason: str
    fields: tuple[str, ...]
    metadata: Callable[[World], Mapping[str, str]]

    @property
    def name(self) -> str:
        """What pytest calls it."""
        return f"{self.rpc}-{self.reason}-{self.about}".replace(" ", "-")

    def expected(self, world: World) -> Expected:
        """What the refusal must say."""
        return Expected(self.reason, self.fields, self.metadata(world))


def case(
    rpc: str,
    about: str,
    request: Callable[[World], Message],
    reason: str,
    *fields: str,
    metadata: Callable[[World], Mapping[str, str]] | None = None,
) -> Case:
    """Makes a case, and enters it into the book."""
    _enter(rpc, reason)
    return Case(rpc, about, request, reason, fields, metadata or (lambda _world: {}))


def covers(rpcs: str | Iterable[str], *covered: str) -> Callable[[_Test], _Test]:
    """Marks a test function as the case of these reasons of a call, or of each of several."""
    for rpc in (rpcs,) if isinstance(rpcs, str) else rpcs:
        for reason in covered:
            _enter(rpc, reason)
    return lambda test: test


def tells(*told: str) -> Callable[[_Test], _Test]:
    """Marks a test function as the case of reasons that are told and end no call."""
    assert set(told) <= reasons()
    TOLD.update(told)
    return lambda test: test


def _enter(rpc: str, reason: str) -> None:
    assert reason in reasons(), reason
    COVERED.add((method(rpc).containing_service.name + "." + method(rpc).name, reason))
