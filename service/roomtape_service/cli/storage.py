"""`roomtape storage check`: does an application's store work?"""

import argparse

from roomtape.client import Client
from roomtape.v1 import application_pb2
from roomtape_service.cli.calling import ExitCode, call
from roomtape_service.cli.options import add_actions, add_client_arguments
from roomtape_service.cli.output import Output, new_table
from roomtape_service.cli.storage_options import add_storage_arguments, storage

__all__ = ["add_arguments", "run"]

# A store that does not answer is found out by time-outs, one after the other.
_CHECK_SECONDS = 180.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The action."""
    add_actions(
        parser,
        {
            "check": (
                "put, read, list and delete objects in both stores, with the stored settings or those given",
                _add_check,
            )
        },
    )


def run(arguments: argparse.Namespace) -> int:
    """Checks; 0 when every step worked."""
    return call(arguments, lambda client, output: _check(arguments, client, output))


def _add_check(parser: argparse.ArgumentParser) -> None:
    add_storage_arguments(parser)
    add_client_arguments(parser)


async def _check(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    request = application_pb2.CheckStorageRequest(app_id=arguments.app, storage=storage(arguments))
    reply = await client.applications.CheckStorage(request, timeout=_CHECK_SECONDS)
    table = new_table("store", "step", "result", "code", "what to do")
    for step in reply.steps:
        store = "secondary" if step.secondary else "first"
        table.add_row(store, step.name, "ok" if step.ok else "FAILED", step.error_code, step.message)
    output.show(reply, table)
    return ExitCode.DONE if reply.ok else ExitCode.FAILED
