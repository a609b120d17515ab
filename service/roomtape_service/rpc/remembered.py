"""Answers that need not be read again while nothing was written."""

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape_service.database.database import Database

__all__ = ["RememberedAnswers"]

_ANSWERS_MAX = 256
"""Of as many questions; who asks for more has a database that can be asked."""

M = TypeVar("M", bound=Message)


class RememberedAnswers(Generic[M]):
    """What the database said, for as long as it would say the same.

    A write ends that before its caller is answered, so whoever asks after a reply sees what the reply said. Where
    others write too, everything is read each time.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._version: int | None = None
        self._answers: dict[Hashable, M] = {}

    async def get(self, question: Hashable, read: Callable[[AsyncConnection], Awaitable[M]]) -> M:
        """The answer of `read`, which nobody may change. Raises what `read` raises."""
        version = self._database.version
        if version is None:
            return await self._database.read(read)
        if version != self._version:
            self._version = version
            self._answers.clear()
        answer = self._answers.get(question)
        if answer is None:
            answer = await self._database.read(read)
            if self._version == version == self._database.version and len(self._answers) < _ANSWERS_MAX:
                self._answers[question] = answer
        return answer
