"""A process of many watchers: `python -m tests.support.watch_crowd TARGET APP WATCHERS STALLED EVENTS`.

1. All streams are opened at once, from now on, those of the last STALLED watchers with the least that HTTP/2 lets a
   peer send ahead; `{"open": n}` is printed when each has had its first message.
2. All read but these, which read nothing before the first line of stdin comes. Streams that end are resumed.
3. When everybody has so many events, `{"events": n, "resumes": n, "first": n}` is printed: how many events came in
   all, how many streams were resumed, and the sequence of the first event.

It ends with an error when an event is missing, comes twice or too early, or is another one than the others had.
"""

import asyncio
import json
import os
import sys

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import grpc
import uvloop
from grpc import aio

from roomtape.v1 import event_pb2

__all__: list[str] = []

_METHOD = "/roomtape.v1.WatchService/WatchEvents"
_CONNECTIONS = 4
_AGAIN_SECONDS = 0.1
_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)
_NARROW = (*_OPTIONS, ("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535))
_RESUMED = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})


class _Crowd:
    def __init__(self, target: str, app_id: str, watchers: int, stalled: int, events: int) -> None:
        wide = [aio.insecure_channel(target, options=_OPTIONS) for _ in range(_CONNECTIONS)]
        narrow = [aio.insecure_channel(target, options=_NARROW) for _ in range(min(stalled, _CONNECTIONS))]
        self._channels = [*wide, *narrow]
        self._app_id = app_id
        self._events = events
        # What the first of all got, message by message; the others get the same.
        self._log: list[bytes] = []
        self._waking = asyncio.Event()
        self._missing = watchers
        self._resumes = 0
        self.open = asyncio.Event()
        reading = watchers - stalled
        self._watchers = [
            asyncio.create_task(self._watch(wide[index % len(wide)], stalls=False))
            for index in range(reading)
        ] + [
            asyncio.create_task(self._watch(narrow[index % len(narrow)], stalls=True))
            for index in range(stalled)
        ]

    def wake(self) -> None:
        """Everybody reads."""
        self._waking.set()

    async def finish(self) -> None:
        """Returns when everybody has everything. Raises what went wrong."""
        await asyncio.gather(*self._watchers)
        first = event_pb2.WatchEventsResponse.FromString(self._log[0]).event.sequence
        for place, message in enumerate(self._log):
            assert event_pb2.WatchEventsResponse.FromString(message).event.sequence == first + place
        events = len(self._watchers) * self._events
        print(json.dumps({"events": events, "resumes": self._resumes, "first": first}), flush=True)
        for channel in self._channels:
            await channel.close()

    async def _watch(self, channel: aio.Channel, *, stalls: bool) -> None:
        method: aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(_METHOD)
        request = event_pb2.WatchEventsRequest(app_id=self._app_id, origin=event_pb2.WATCH_ORIGIN_NOW)
        place, is_open = 0, False
        while place < self._events:
            call = method(request.SerializeToString())
            try:
                while place < self._events:
                    message = await call.read()
                    assert isinstance(message, bytes), "the stream ended"
                    if not is_open:
                        is_open = True
                        self._opened()
                        if stalls:
                            await self._waking.wait()
                    if place < len(self._log) and message == self._log[place]:
                        place += 1
                        continue
                    response = event_pb2.WatchEventsResponse.FromString(message)
                    if response.HasField("event"):
                        assert place == len(self._log), f"{response} came instead of {self._log[place]!r}"
                        self._log.append(message)
                        place += 1
            except aio.AioRpcError as error:
                if error.code() not in _RESUMED:
                    raise
                self._resumes += 1
                if place:
                    reached = event_pb2.WatchEventsResponse.FromString(self._log[place - 1])
                    request.resume_token = reached.resume_token
                await asyncio.sleep(_AGAIN_SECONDS)
            finally:
                call.cancel()

    def _opened(self) -> None:
        self._missing -= 1
        if not self._missing:
            self.open.set()


async def _run(target: str, app_id: str, watchers: int, stalled: int, events: int) -> None:
    loop = asyncio.get_running_loop()
    crowd = _Crowd(target, app_id, watchers, stalled, events)
    finishing = asyncio.create_task(crowd.finish())
    opening = asyncio.create_task(crowd.open.wait())
    await asyncio.wait((opening, finishing), return_when=asyncio.FIRST_COMPLETED)
    if not opening.done():
        await finishing
    print(json.dumps({"open": watchers}), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    crowd.wake()
    await finishing


if __name__ == "__main__":
    _target, _app, *_numbers = sys.argv[1:]
    uvloop.run(_run(_target, _app, *(int(number) for number in _numbers)))
