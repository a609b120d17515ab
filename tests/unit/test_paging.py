"""Page tokens fit the list that gave them, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomtape.v1 import error_pb2, file_pb2, room_pb2, task_pb2
from roomtape_service.errors import Refusal
from roomtape_service.rpc.paging import Place, read_page, write_token

places = st.lists(st.text() | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3).map(tuple)


@given(places, st.text(max_size=20))
def test_a_token_leads_back_to_its_place(place: Place, prefix: str) -> None:
    request = file_pb2.ListFilesRequest(app_id="one", key_prefix=prefix)
    token = write_token(request, place)
    request.page_token, request.page_size = token, 7
    assert read_page(request) == (7, place)


@pytest.mark.parametrize(
    ("asked", "given_size"), [(0, 100), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)]
)
def test_sizes(asked: int, given_size: int) -> None:
    assert read_page(room_pb2.ListRoomsRequest(app_id="one", page_size=asked)) == (given_size, ())


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(Refusal) as caught:
        read_page(room_pb2.ListRoomsRequest(page_size=-1))
    assert caught.value.reason == error_pb2.ERROR_REASON_INVALID_VALUE
    assert caught.value.fields[0].field == "page_size"


TOKEN = write_token(task_pb2.ListTasksRequest(app_id="one", room_id="a"), (5, "x"))


@pytest.mark.parametrize(
    "request_",
    [
        task_pb2.ListTasksRequest(app_id="two", room_id="a", page_token=TOKEN),
        task_pb2.ListTasksRequest(app_id="one", page_token=TOKEN),
        task_pb2.ListTasksRequest(
            app_id="one", room_id="a", states=[task_pb2.TASK_STATE_IDLE], page_token=TOKEN
        ),
        room_pb2.ListRoomsRequest(app_id="one", page_token=TOKEN),
        task_pb2.ListTasksRequest(app_id="one", room_id="a", page_token=TOKEN[:-1]),
        task_pb2.ListTasksRequest(app_id="one", room_id="a", page_token="A" + TOKEN[1:]),
        task_pb2.ListTasksRequest(app_id="one", room_id="a", page_token="nonsense"),
        task_pb2.ListTasksRequest(app_id="one", room_id="a", page_token="é😀\n"),
        task_pb2.ListTasksRequest(app_id="one", room_id="a", page_token="A" * 100_000),
    ],
)
def test_a_token_of_another_list_is_refused(
    request_: task_pb2.ListTasksRequest | room_pb2.ListRoomsRequest,
) -> None:
    with pytest.raises(Refusal) as caught:
        read_page(request_)
    assert caught.value.reason == error_pb2.ERROR_REASON_INVALID_PAGE_TOKEN


@given(st.text(max_size=60))
def test_any_text_as_a_token_is_refused_by_name(token: str) -> None:
    if not token:
        return
    request = room_pb2.ListRoomsRequest(
        app_id="one", page_token=token.encode("utf-8", "ignore").decode() or "x"
    )
    with pytest.raises(Refusal):
        read_page(request)
