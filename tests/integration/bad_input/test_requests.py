"""Requests that are refused: each with its code, reason and fields, and nothing is changed by it."""

import pytest

from tests.integration.bad_input import (
    application_cases,
    file_cases,
    recording_cases,
    room_cases,
    start_cases,
    watch_cases,
    webhook_cases,
)
from tests.integration.bad_input.cases import Case
from tests.integration.bad_input.world import World

pytestmark = pytest.mark.asyncio(loop_scope="package")

CASES = (
    *start_cases.START_CASES,
    *recording_cases.CASES,
    *room_cases.CASES,
    *application_cases.CASES,
    *file_cases.CASES,
    *watch_cases.CASES,
    *webhook_cases.CASES,
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_bad_request_is_refused_and_changes_nothing(world: World, case: Case) -> None:
    async with world.unchanged():
        refused = await world.refused(case.rpc, case.request(world))
    case.expected(world).check(refused)
