"""`roomtape apps`: the applications and where their files go."""

import argparse

from google.protobuf.field_mask_pb2 import FieldMask

from roomtape.client import Client
from roomtape.client.paging import pages
from roomtape.v1 import application_pb2
from roomtape_service.cli.calling import CommandError, ExitCode, call
from roomtape_service.cli.options import add_actions, add_client_arguments, choice
from roomtape_service.cli.output import Output
from roomtape_service.cli.storage_options import add_storage_arguments, storage
from roomtape_service.cli.tables import application_table

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions."""
    add_actions(
        parser,
        {
            "create": ("create an application", _add_create),
            "get": ("show an application", _add_get),
            "list": ("list the applications that the key may see", _add_list),
            "update": ("change what is given", _add_update),
        },
    )


def run(arguments: argparse.Namespace) -> int:
    """Does the action."""
    work = {"create": _create, "get": _get, "list": _list, "update": _update}[arguments.action]
    return call(arguments, lambda client, output: work(arguments, client, output))


def _add_create(parser: argparse.ArgumentParser) -> None:
    _add_app(parser)
    _add_values(parser)
    add_client_arguments(parser, app=False)


def _add_get(parser: argparse.ArgumentParser) -> None:
    _add_app(parser)
    add_client_arguments(parser, app=False)


def _add_list(parser: argparse.ArgumentParser) -> None:
    add_client_arguments(parser, app=False)


def _add_update(parser: argparse.ArgumentParser) -> None:
    _add_app(parser)
    _add_values(parser)
    parser.add_argument("--etag", default="", help="change it only if this is still its etag")
    add_client_arguments(parser, app=False)


def _add_app(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("app_id", metavar="APP", help="id of the application")


def _add_values(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", metavar="TEXT", help="for people")
    parser.add_argument(
        "--profile",
        type=choice(application_pb2.Profile.DESCRIPTOR),
        metavar="roomtape|gme",
        help="whose rules apply",
    )
    parser.add_argument(
        "--recording",
        type=choice(application_pb2.ServiceState.DESCRIPTOR),
        metavar="enabled|disabled",
        help="whether tasks may be started",
    )
    add_storage_arguments(parser)


async def _create(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    application, _ = _values(arguments)
    request = application_pb2.CreateApplicationRequest(application=application)
    reply = await client.applications.CreateApplication(request)
    output.show(reply.application, application_table([reply.application]))
    return ExitCode.DONE


async def _get(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    request = application_pb2.GetApplicationRequest(app_id=arguments.app_id)
    reply = await client.applications.GetApplication(request)
    output.show(reply.application, application_table([reply.application]))
    return ExitCode.DONE


async def _list(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    request = application_pb2.ListApplicationsRequest()
    applications = [
        application
        async for page in pages(client.applications.ListApplications, request)
        for application in page.applications
    ]
    output.show_all(applications, application_table(applications), "no applications")
    return ExitCode.DONE


async def _update(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    application, mask = _values(arguments)
    if not mask.paths:
        raise CommandError("nothing to change; give --name, --profile, --recording or a store")
    application.etag = arguments.etag
    request = application_pb2.UpdateApplicationRequest(application=application, update_mask=mask)
    reply = await client.applications.UpdateApplication(request)
    output.show(reply.application, application_table([reply.application]))
    return ExitCode.DONE


def _values(arguments: argparse.Namespace) -> tuple[application_pb2.Application, FieldMask]:
    application = application_pb2.Application(app_id=arguments.app_id)
    mask = FieldMask()
    if arguments.name is not None:
        application.display_name = arguments.name
        mask.paths.append("display_name")
    if arguments.profile is not None:
        application.profile = arguments.profile
        mask.paths.append("profile")
    if arguments.recording is not None:
        application.service_state = arguments.recording
        mask.paths.append("service_state")
    settings = storage(arguments)
    if settings is not None:
        application.storage.CopyFrom(settings)
        mask.paths.append("storage")
    return application, mask
