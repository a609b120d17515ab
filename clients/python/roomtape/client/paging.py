"""Lists that come in pages."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Protocol, TypeVar

from google.protobuf.message import Message

__all__ = ["pages", "sync_pages"]


class _Page(Protocol):
    @property
    def next_page_token(self) -> str: ...


_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=_Page)


async def pages(
    call: Callable[[_Request], Awaitable[_Response]], request: _Request
) -> AsyncIterator[_Response]:
    """The pages of a list from the one that `request` asks for, each read when it is wanted."""
    token: str | None = None
    while token != "":
        response = await call(_at(request, token))
        yield response
        token = response.next_page_token


def sync_pages(call: Callable[[_Request], _Response], request: _Request) -> Iterator[_Response]:
    """The same, for threads."""
    token: str | None = None
    while token != "":
        response = call(_at(request, token))
        yield response
        token = response.next_page_token


def _at(request: _Request, token: str | None) -> _Request:
    page = type(request)()
    page.CopyFrom(request)
    if token is not None:
        setattr(page, _PAGE_TOKEN, token)
    return page


_PAGE_TOKEN = "page_token"
