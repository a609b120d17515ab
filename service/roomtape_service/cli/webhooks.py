"""`roomtape webhooks`: receivers of events, and what became of what they were sent."""

import argparse

from roomtape.client import Client
from roomtape.client.paging import pages
from roomtape.v1 import webhook_pb2
from roomtape_service.cli.calling import CommandError, ExitCode, call
from roomtape_service.cli.options import add_actions, add_client_arguments, choice, comma_separated, reader
from roomtape_service.cli.output import Output
from roomtape_service.cli.texts import read_span
from roomtape_service.cli.webhook_listen import add_listen_arguments, listen
from roomtape_service.cli.webhook_options import (
    add_filter,
    add_key,
    add_values,
    given_key,
    given_values,
    show_key,
)
from roomtape_service.cli.webhook_tables import delivery_table, webhook_table

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions."""
    add_actions(
        parser,
        {
            "create": ("send an application's events to a URL", _add_create),
            "get": ("show a webhook, and how it gets on", _add_webhook),
            "list": ("list the application's webhooks, oldest first", _add_list),
            "update": ("change what is given", _add_update),
            "delete": ("delete webhooks, and what is queued for them", _add_delete),
            "rotate-key": ("make a new key; the one before signs beside it for a while", _add_rotate),
            "deliveries": ("list deliveries that wait or were given up", _add_deliveries),
            "resend": ("send deliveries again; without ids all that were given up", _add_resend),
            "listen": ("receive webhooks here, verify them and show them", add_listen_arguments),
        },
    )


def run(arguments: argparse.Namespace) -> int:
    """Does the action."""
    if arguments.action == "listen":
        return listen(arguments)
    actions = {
        "create": _create,
        "get": _get,
        "list": _list,
        "update": _update,
        "delete": _delete,
        "rotate-key": _rotate,
        "deliveries": _deliveries,
        "resend": _resend,
    }
    work = actions[arguments.action]
    return call(arguments, lambda client, output: work(arguments, client, output))


def _add_create(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "url", metavar="URL", help="where events go, such as https://hooks.example.com/events"
    )
    parser.add_argument(
        "--format",
        type=choice(webhook_pb2.WebhookFormat.DESCRIPTOR),
        metavar="roomtape|gme|trtc|trtc-classic|volc",
        help="how it speaks; default: roomtape",
    )
    add_values(parser)
    add_filter(parser)
    add_key(parser)
    parser.set_defaults(all_events=False)
    add_client_arguments(parser)


def _add_webhook(parser: argparse.ArgumentParser) -> None:
    _add_id(parser)
    add_client_arguments(parser)


def _add_list(parser: argparse.ArgumentParser) -> None:
    add_client_arguments(parser)


def _add_update(parser: argparse.ArgumentParser) -> None:
    _add_id(parser)
    parser.add_argument("--url", help="where events go")
    add_values(parser)
    add_filter(parser)
    parser.add_argument("--all-events", action="store_true", help="of all types, rooms and tasks")
    parser.add_argument("--etag", default="", help="change it only if this is still its etag")
    add_client_arguments(parser)


def _add_delete(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("webhooks", metavar="WEBHOOK_ID", nargs="+", help="ids of the webhooks")
    add_client_arguments(parser)


def _add_rotate(parser: argparse.ArgumentParser) -> None:
    _add_id(parser)
    parser.add_argument(
        "--overlap",
        type=reader(read_span),
        metavar="SPAN",
        help="how long the keys before still sign: 0s to 7d, 0s ends them now; default: 24h",
    )
    add_key(parser)
    add_client_arguments(parser)


def _add_deliveries(parser: argparse.ArgumentParser) -> None:
    _add_id(parser)
    parser.add_argument(
        "--state",
        type=comma_separated(choice(webhook_pb2.WebhookDeliveryState.DESCRIPTOR)),
        action="extend",
        default=[],
        metavar="STATE[,STATE]",
        help="pending, delivered or dead; default: pending,dead",
    )
    parser.add_argument("--task", default="", help="only of this task")
    parser.add_argument("--limit", type=int, metavar="N", help="the first so many; default: all")
    add_client_arguments(parser)


def _add_resend(parser: argparse.ArgumentParser) -> None:
    _add_id(parser)
    parser.add_argument("deliveries", metavar="DELIVERY_ID", nargs="*", help="these, whatever their state")
    add_client_arguments(parser)


def _add_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("webhook", metavar="WEBHOOK_ID", help="id of the webhook")


async def _create(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    webhook, _ = given_values(arguments, url=arguments.url)
    if arguments.format is not None:
        webhook.format = arguments.format
    request = webhook_pb2.CreateWebhookRequest(webhook=webhook, key=given_key(arguments))
    reply = await client.webhooks.CreateWebhook(request)
    show_key(arguments, reply.key, output)
    output.show(reply, webhook_table([reply.webhook]))
    return ExitCode.DONE


async def _get(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    request = webhook_pb2.GetWebhookRequest(app_id=arguments.app, webhook_id=arguments.webhook)
    webhook = (await client.webhooks.GetWebhook(request)).webhook
    output.show(webhook, webhook_table([webhook]))
    if webhook.status.last_error:
        output.note(f"the last attempt that failed: {webhook.status.last_error}")
    return ExitCode.DONE


async def _list(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    request = webhook_pb2.ListWebhooksRequest(app_id=arguments.app)
    webhooks = [
        webhook async for page in pages(client.webhooks.ListWebhooks, request) for webhook in page.webhooks
    ]
    output.show_all(webhooks, webhook_table(webhooks), "no webhooks")
    return ExitCode.DONE


async def _update(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    webhook, mask = given_values(arguments, url=arguments.url)
    if not mask.paths:
        raise CommandError("nothing to change; give --url, --name, --enable, a filter or another value")
    webhook.webhook_id = arguments.webhook
    webhook.etag = arguments.etag
    request = webhook_pb2.UpdateWebhookRequest(webhook=webhook, update_mask=mask)
    changed = (await client.webhooks.UpdateWebhook(request)).webhook
    output.show(changed, webhook_table([changed]))
    return ExitCode.DONE


async def _delete(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    for webhook_id in arguments.webhooks:
        await client.webhooks.DeleteWebhook(
            webhook_pb2.DeleteWebhookRequest(app_id=arguments.app, webhook_id=webhook_id)
        )
        output.note(f"deleted {webhook_id}")
    return ExitCode.DONE


async def _rotate(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    request = webhook_pb2.RotateWebhookKeyRequest(
        app_id=arguments.app,
        webhook_id=arguments.webhook,
        key=given_key(arguments),
        overlap=arguments.overlap,
    )
    reply = await client.webhooks.RotateWebhookKey(request)
    show_key(arguments, reply.key, output)
    output.show(reply, webhook_table([reply.webhook]))
    return ExitCode.DONE


async def _deliveries(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    request = webhook_pb2.ListWebhookDeliveriesRequest(
        app_id=arguments.app, webhook_id=arguments.webhook, states=arguments.state, task_id=arguments.task
    )
    found: list[webhook_pb2.WebhookDelivery] = []
    async for page in pages(client.webhooks.ListWebhookDeliveries, request):
        found += page.deliveries
        if arguments.limit is not None and len(found) >= arguments.limit:
            del found[arguments.limit :]
            break
    output.show_all(found, delivery_table(found), "no deliveries")
    return ExitCode.DONE


async def _resend(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    request = webhook_pb2.ResendWebhookDeliveriesRequest(
        app_id=arguments.app, webhook_id=arguments.webhook, delivery_ids=arguments.deliveries
    )
    total = webhook_pb2.ResendWebhookDeliveriesResponse()
    most: int | None = None
    while True:
        reply = await client.webhooks.ResendWebhookDeliveries(request)
        total.count += reply.count
        total.dead_count = reply.dead_count
        if most is None:
            # What is given up again meanwhile is not sent for ever.
            most = reply.count + reply.dead_count
        if arguments.deliveries or not reply.count or total.count >= most:
            break
    noun = "delivery is" if total.count == 1 else "deliveries are"
    output.show(total, f"{total.count} {noun} queued again")
    return ExitCode.DONE
