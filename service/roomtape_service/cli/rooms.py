"""`roomtape rooms`: open and close rooms, see who is in them."""

import argparse

from roomtape.client import Client
from roomtape.v1 import media_pb2, room_pb2
from roomtape_service.cli.calling import ExitCode, call
from roomtape_service.cli.enums import label
from roomtape_service.cli.options import add_actions, add_client_arguments, choice
from roomtape_service.cli.output import Output, new_table
from roomtape_service.cli.tables import room_table
from roomtape_service.cli.texts import show_time

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions."""
    add_actions(
        parser,
        {
            "create": ("open a room", _add_create),
            "close": ("close a room; its tasks stop", _add_room),
            "describe": ("show a room and who is in it", _add_room),
            "list": ("list the open rooms", add_client_arguments),
        },
    )


def run(arguments: argparse.Namespace) -> int:
    """Does the action."""
    work = {"create": _create, "close": _close, "describe": _describe, "list": _list}[arguments.action]
    return call(arguments, lambda client, output: work(arguments, client, output))


def _add_room(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("room", metavar="ROOM", help="id of the room")
    add_client_arguments(parser)


def _add_create(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clock",
        type=choice(room_pb2.RoomClock.DESCRIPTOR),
        default=room_pb2.ROOM_CLOCK_ARRIVAL,
        metavar="arrival|media",
        help="what the room's time is made of: the server's clock, or the publishers' capture times; default: arrival",
    )
    _add_room(parser)


async def _create(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    request = room_pb2.CreateRoomRequest(app_id=arguments.app, room_id=arguments.room, clock=arguments.clock)
    room = (await client.rooms.CreateRoom(request)).room
    output.show(room, room_table([room]))
    return ExitCode.DONE


async def _close(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    request = room_pb2.CloseRoomRequest(app_id=arguments.app, room_id=arguments.room)
    output.show(await client.rooms.CloseRoom(request), f"{arguments.room} is closed")
    return ExitCode.DONE


async def _describe(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    request = room_pb2.DescribeRoomRequest(app_id=arguments.app, room_id=arguments.room)
    room = (await client.rooms.DescribeRoom(request)).room
    output.show(room, room_table([room]))
    if output.as_json:
        return ExitCode.DONE
    table = new_table("user", "joined", "connection", "tracks", "session")
    for participant in room.participants:
        table.add_row(
            participant.user_id,
            show_time(participant.join_time),
            "up" if participant.connected else "broken",
            ", ".join(map(_track, participant.tracks)),
            participant.publish_session_id,
        )
    output.console.print()
    output.show_all(room.participants, table, "nobody is in it")
    return ExitCode.DONE


async def _list(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    request = room_pb2.ListRoomsRequest(app_id=arguments.app)
    rooms = [room async for room in client.list_rooms(request)]
    output.show_all(rooms, room_table(rooms), "no room is open")
    return ExitCode.DONE


def _track(track: room_pb2.Track) -> str:
    text = f"{track.track_id} ({label(media_pb2.Codec.DESCRIPTOR, track.codec)})"
    return f"{text} muted" if track.muted else text
