"""A process that writes units until it is killed: `python log_writer.py URL NAME`.

It says `ready`, waits for a line, then says the name of each unit after it was acknowledged. A unit is a recording
(the state), two events and a stored reply.
"""

import asyncio
import sys

from sqlalchemy import insert

from roomtape.v1 import event_pb2
from roomtape_service.clock import SystemClock
from roomtape_service.database import Database, UnitOfWork, requests
from roomtape_service.database.tables import recordings

WRITERS = 8
APP, ROOM, TASK = "app", "room", "11"


async def main(url: str, name: str) -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    database = Database(url, SystemClock())
    await database.open()
    await asyncio.gather(*(write(database, f"{name}-{number}") for number in range(WRITERS)))


async def write(database: Database, name: str) -> None:
    number = 0
    while True:
        number += 1
        await database.write(Unit(f"{name}-{number}").work)
        print(f"{name}-{number}", flush=True)


class Unit:
    def __init__(self, name: str) -> None:
        self.name = name

    async def work(self, uow: UnitOfWork) -> None:
        values = {"recording_id": self.name, "task_id": TASK, "app_id": APP, "kind": 1, "user_id": "u"}
        await uow.connection.execute(insert(recordings).values(**values, start_ns=uow.now_ns))
        event = event_pb2.Event(app_id=APP, room_id=ROOM, task_id=TASK, type=event_pb2.EVENT_TYPE_WARNING)
        event.warning.message = self.name
        await uow.append(event)
        await asyncio.sleep(0)
        await uow.append(event)
        await requests.store(uow, APP, self.name, "Write", event, event)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
