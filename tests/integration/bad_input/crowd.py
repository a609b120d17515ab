"""Many publishers in a process of their own, which ends when it is killed.

`python -m tests.integration.bad_input.crowd TARGET USERS`: opens them in the room `r` of the application `app`.
"""

import asyncio
import sys
from contextlib import AsyncExitStack

from grpc import aio

from roomtape.v1 import media_pb2
from tests.integration.bad_input.publishing import RawPublish, opening
from tests.integration.bad_input.witness import offer_of


async def main(target: str, users: int) -> None:
    offers = [offer_of(media_pb2.CODEC_OPUS)]
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(aio.insecure_channel(target))
        streams = [await stack.enter_async_context(RawPublish(channel)) for _ in range(users)]
        await asyncio.gather(
            *(stream.open(opening("r", f"user-{number}", offers)) for number, stream in enumerate(streams))
        )
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
