"""Kinds of stores that other distributions bring.

A distribution adds a kind by an entry point of the group `roomtape.stores`: its name is what `CustomStore.kind` says,
and it leads to something that is called once, without arguments, and gives a `StoreKind`.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

import structlog

from roomtape_service.storage.store import Store, StoreRefused
from roomtape_service.storage.vendors import VENDORS

__all__ = ["GROUP", "StoreKind", "StoreKinds", "installed_kinds"]

GROUP = "roomtape.stores"

_log = structlog.get_logger(__name__)


class StoreKind(Protocol):
    """Stores of one kind. `options` and `secrets` are those of CustomStore, by names of the kind's own."""

    def problems(self, options: Mapping[str, str], secrets: Mapping[str, str]) -> Mapping[str, str]:
        """What can't work and what to change, by the name of the option or secret, or "" where it is neither.

        Empty for settings that may work. Does no I/O, and repeats no secret.
        """
        ...

    def store(self, options: Mapping[str, str], secrets: Mapping[str, str]) -> Store:
        """The store; made often, so it opens nothing yet. Its identity starts with the kind's name and a colon.

        Identity and `url` must do without secrets, which are missing or sealed where only those are asked for.
        """
        ...

    async def aclose(self) -> None:
        """Closes what the kind's stores share."""
        ...


class StoreKinds:
    """The kinds of a server, by name."""

    def __init__(self, kinds: Mapping[str, StoreKind] | None = None) -> None:
        self._kinds = dict(kinds or {})

    @property
    def names(self) -> Sequence[str]:
        """All names, in their order."""
        return sorted(self._kinds)

    def problems(
        self, name: str, options: Mapping[str, str], secrets: Mapping[str, str]
    ) -> Mapping[str, str]:
        """As `StoreKind.problems`, of a kind that there is."""
        return self._kinds[name].problems(options, secrets)

    def store(self, name: str, options: Mapping[str, str], secrets: Mapping[str, str]) -> Store:
        """The store of settings that are valid. Raises StoreRefused when the kind was removed or makes none."""
        kind = self._kinds.get(name)
        if kind is None:
            raise StoreRefused(
                "StoreKindMissing",
                f"This server has no stores of the kind {name!r} any more. Its operator must install what brings them, "
                "or other storage must be set.",
            )
        store = kind.store(options, secrets)
        if not store.identity.startswith(f"{name}:"):
            raise StoreRefused("StoreKindBroken", f"Stores of the kind {name!r} have the identity of others.")
        return store

    async def aclose(self) -> None:
        """Closes what the kinds have open."""
        for name, kind in self._kinds.items():
            try:
                await kind.aclose()
            except Exception:
                # What others wrote must not keep the rest from being closed.
                _log.exception("store_kind_not_closed", kind=name)


def installed_kinds() -> StoreKinds:
    """The kinds of all installed distributions. What can't be loaded, or has a name of ours, is logged and left out."""
    kinds: dict[str, StoreKind] = {}
    taken = {"disk", *(vendor.name for vendor in VENDORS.values())}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        if entry.name in taken:
            _log.error("store_kind_refused", kind=entry.name, value=entry.value, reason="the name is taken")
            continue
        try:
            kinds[entry.name] = _load(entry)()
        except Exception:
            _log.exception("store_kind_not_loaded", kind=entry.name, value=entry.value)
            continue
        taken.add(entry.name)
    return StoreKinds(kinds)


def _load(entry: EntryPoint) -> Callable[[], StoreKind]:
    factory: Callable[[], StoreKind] = entry.load()
    return factory
