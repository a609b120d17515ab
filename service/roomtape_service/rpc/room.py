"""RoomService: what an RTC platform tells us about its rooms."""

from roomtape.v1 import room_pb2, room_pb2_grpc
from roomtape_service.database import applications as application_rows
from roomtape_service.database.database import Database
from roomtape_service.database.orders import Order
from roomtape_service.rooms.participants import Participants
from roomtape_service.rooms.rooms import Rooms
from roomtape_service.rpc import validation
from roomtape_service.rpc.interceptors import Context
from roomtape_service.rpc.paging import read_page, write_token

__all__ = ["RoomServicer"]


class RoomServicer(room_pb2_grpc.RoomServiceServicer):
    """See the contract for what each call does and refuses."""

    def __init__(self, database: Database, rooms: Rooms, participants: Participants) -> None:
        self._database = database
        self._rooms = rooms
        self._participants = participants

    async def CreateRoom(
        self, request: room_pb2.CreateRoomRequest, context: Context
    ) -> room_pb2.CreateRoomResponse:
        validation.refuse(
            validation.app_id(request.app_id),
            validation.room_id(request.room_id),
            validation.enum(request.clock, room_pb2.RoomClock, "clock"),
            validation.request_id(request.request_id),
        )
        clock = request.clock or room_pb2.ROOM_CLOCK_ARRIVAL
        order = Order(request.app_id, request.request_id, "CreateRoom", request, room_pb2.CreateRoomResponse)
        return await self._rooms.open(order, request.room_id, clock)

    async def CloseRoom(
        self, request: room_pb2.CloseRoomRequest, context: Context
    ) -> room_pb2.CloseRoomResponse:
        validation.refuse(
            validation.app_id(request.app_id),
            validation.room_id(request.room_id),
            validation.request_id(request.request_id),
        )
        order = Order(request.app_id, request.request_id, "CloseRoom", request, room_pb2.CloseRoomResponse)
        return await self._rooms.close(order, request.room_id)

    async def DescribeRoom(
        self, request: room_pb2.DescribeRoomRequest, context: Context
    ) -> room_pb2.DescribeRoomResponse:
        validation.refuse(validation.app_id(request.app_id), validation.room_id(request.room_id))
        room = self._rooms.find(request.app_id, request.room_id)
        proto = room.proto()
        proto.participants.extend(who.proto() for who in room.participants.values())
        return room_pb2.DescribeRoomResponse(room=proto)

    async def ListRooms(
        self, request: room_pb2.ListRoomsRequest, context: Context
    ) -> room_pb2.ListRoomsResponse:
        validation.refuse(validation.app_id(request.app_id))
        size, place = read_page(request)
        await self._database.read(lambda connection: application_rows.get(connection, request.app_id))
        after = str(place[0]) if place else None
        rooms = [r for r in self._rooms.of_application(request.app_id) if after is None or r.room_id > after]
        page = rooms[:size]
        return room_pb2.ListRoomsResponse(
            rooms=[room.proto() for room in page],
            next_page_token=write_token(request, (page[-1].room_id,)) if len(rooms) > size else "",
        )

    async def SetTrackMuted(
        self, request: room_pb2.SetTrackMutedRequest, context: Context
    ) -> room_pb2.SetTrackMutedResponse:
        validation.refuse(
            validation.app_id(request.app_id),
            validation.room_id(request.room_id),
            validation.user_id(request.user_id),
            validation.track_id(request.track_id, required=False),
            validation.request_id(request.request_id),
        )
        order = Order(
            request.app_id, request.request_id, "SetTrackMuted", request, room_pb2.SetTrackMutedResponse
        )
        room = self._rooms.get(request.app_id, request.room_id)
        if room is None:
            return await self._rooms.answered_before(order, request.room_id)
        return await self._participants.mute(room, request.user_id, request.track_id, request.muted, order)

    async def RemoveParticipant(
        self, request: room_pb2.RemoveParticipantRequest, context: Context
    ) -> room_pb2.RemoveParticipantResponse:
        validation.refuse(
            validation.app_id(request.app_id),
            validation.room_id(request.room_id),
            validation.user_id(request.user_id),
            validation.request_id(request.request_id),
        )
        order = Order(
            request.app_id,
            request.request_id,
            "RemoveParticipant",
            request,
            room_pb2.RemoveParticipantResponse,
        )
        room = self._rooms.get(request.app_id, request.room_id)
        if room is None:
            return await self._rooms.answered_before(order, request.room_id)
        return await self._participants.remove(room, request.user_id, order)
