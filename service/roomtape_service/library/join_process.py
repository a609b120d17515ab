"""One run of the joining process: its sources go in, its answer comes out.

It is started from a thread by vfork, so that nothing of gRPC is forked, and gets nothing but its own end of a socket:
no credentials, no database. When the node dies, that ends, and with it the process.
"""

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress

from roomtape_service.recording.joining.job import (
    JoinFailure,
    JoinJob,
    JoinResult,
    decode_answer,
    encode_line,
)

__all__ = ["JoinProcessLost", "run_join"]

_MODULE = "roomtape_service.recording.joining"

_STUCK_SECONDS = 600.0
"""A process that takes nothing for this long is stuck: a piece of an hour of MP3 takes it half a minute."""


class JoinProcessLost(Exception):
    """The process ended, or got stuck, without an answer."""


async def run_join(job: JoinJob, sources: AsyncIterator[bytes]) -> JoinResult | JoinFailure:
    """Makes the file of `job`; `sources` are the bytes of all its sources in their order.

    Raises JoinProcessLost, and what `sources` raises. However it ends, the process is gone then.
    """
    ours, theirs = socket.socketpair()
    starting = asyncio.ensure_future(asyncio.to_thread(_start, theirs))
    try:
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:
        ours.close()
        # The thread starts it all the same, and somebody has to end it.
        await _end(await starting)
        raise
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    try:
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        answer = asyncio.create_task(reader.readline())
        try:
            with suppress(ConnectionError):
                writer.write(encode_line(job))
                async for data in sources:
                    if answer.done():
                        break
                    writer.write(data)
                    async with asyncio.timeout(_STUCK_SECONDS):
                        await writer.drain()
                writer.write_eof()
            async with asyncio.timeout(_STUCK_SECONDS):
                return decode_answer(await answer)
        finally:
            answer.cancel()
            await asyncio.wait((answer,))
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
    except (TimeoutError, ConnectionError, ValueError) as error:
        text = str(error) or type(error).__name__
        raise JoinProcessLost(f"the joining process gave no answer: {text}") from error
    finally:
        await _end(process)


async def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    await asyncio.shield(asyncio.to_thread(process.wait))


def _start(theirs: socket.socket) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", _MODULE], stdin=theirs.fileno(), stdout=theirs.fileno())
