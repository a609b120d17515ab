"""What the commands about webhooks say of one: its values, and its key."""

import argparse
import os
import sys
from pathlib import Path

from google.protobuf.field_mask_pb2 import FieldMask

from roomtape.v1 import event_pb2, storage_pb2, webhook_pb2
from roomtape_service.cli.calling import CommandError
from roomtape_service.cli.options import choice, comma_separated, read_label, reader
from roomtape_service.cli.output import Output

__all__ = ["add_filter", "add_key", "add_values", "given_key", "given_values", "show_key"]

_STANDARD_INPUT = Path("-")


def add_values(parser: argparse.ArgumentParser) -> None:
    """What can be changed of a webhook, but its filter."""
    parser.add_argument("--name", metavar="TEXT", help="for people")
    parser.add_argument(
        "--retry",
        type=choice(webhook_pb2.WebhookRetry.DESCRIPTOR),
        metavar="roomtape|vendor",
        help="how long a delivery is tried; default: roomtape, for 24 hours",
    )
    parser.add_argument(
        "--concurrency", type=int, metavar="N", help="requests at once, each of another task; default: 8"
    )
    parser.add_argument(
        "--vendor-app-id",
        metavar="NUMBER",
        help="BizId, SdkAppId or AppId in a vendor's format; default: the application",
    )
    parser.add_argument(
        "--string-room-ids",
        action=argparse.BooleanOptionalAction,
        help="in format trtc: room ids are strings, also those that look like numbers",
    )
    enabled = parser.add_mutually_exclusive_group()
    enabled.add_argument("--enable", dest="enabled", action="store_true", default=None, help="send events")
    enabled.add_argument(
        "--disable", dest="enabled", action="store_false", help="queue events, and send them when enabled"
    )


def add_filter(parser: argparse.ArgumentParser) -> None:
    """Which events; all of the arguments must hold."""
    parser.add_argument(
        "--type",
        type=comma_separated(choice(event_pb2.EventType.DESCRIPTOR)),
        action="extend",
        default=[],
        metavar="TYPE[,TYPE]",
        help="only of these types, such as segment-uploaded,task-files-complete",
    )
    parser.add_argument("--room", action="append", default=[], help="only of this room; may be repeated")
    parser.add_argument("--task", action="append", default=[], help="only of this task; may be repeated")
    parser.add_argument(
        "--label",
        type=reader(read_label),
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only of tasks with this label; may be repeated",
    )


def add_key(parser: argparse.ArgumentParser) -> None:
    """Which key, and where it goes."""
    # A key on the command line is seen by everyone on the machine.
    parser.add_argument(
        "--key-file",
        type=Path,
        metavar="FILE",
        help="file with its key, - is standard input; default: the server makes one",
    )
    parser.add_argument(
        "--save-key",
        type=Path,
        metavar="FILE",
        help="write the key there, for its owner alone; default: show it",
    )


def given_values(arguments: argparse.Namespace, *, url: str | None) -> tuple[webhook_pb2.Webhook, FieldMask]:
    """What the arguments say, and which fields that is. `all_events` empties the filter. Raises CommandError."""
    webhook = webhook_pb2.Webhook(app_id=arguments.app)
    mask = FieldMask()
    for name, value in (
        ("url", url),
        ("display_name", arguments.name),
        ("retry", arguments.retry),
        ("concurrency", arguments.concurrency),
        ("vendor_app_id", arguments.vendor_app_id),
        ("string_room_ids", arguments.string_room_ids),
        ("enabled", arguments.enabled),
    ):
        if value is not None:
            setattr(webhook, name, value)
            mask.paths.append(name)
    wanted = event_pb2.EventFilter(
        types=arguments.type, room_ids=arguments.room, task_ids=arguments.task, labels=dict(arguments.label)
    )
    if wanted.ByteSize() and arguments.all_events:
        raise CommandError("--all-events goes with none of --type, --room, --task and --label")
    if wanted.ByteSize() or arguments.all_events:
        webhook.filter.CopyFrom(wanted)
        mask.paths.append("filter")
    return webhook, mask


def given_key(arguments: argparse.Namespace) -> storage_pb2.Secret | None:
    """The key that the caller chose, if any. Raises OSError, and CommandError before a key could be lost."""
    path: Path | None = arguments.save_key
    if path is not None and (path.exists() or not path.parent.is_dir()):
        raise CommandError(f"{path} is there, or its folder is not; the key would be lost")
    if arguments.key_file is None:
        return None
    text = (
        sys.stdin.read() if arguments.key_file == _STANDARD_INPUT else arguments.key_file.read_text("utf-8")
    )
    if not text.strip():
        raise CommandError(f"{arguments.key_file} is empty")
    return storage_pb2.Secret(value=text.strip())


def show_key(arguments: argparse.Namespace, key: storage_pb2.Secret, output: Output) -> None:
    """Writes the key where it was asked for, and takes it out of `key` then; or shows it, for people."""
    if arguments.save_key is not None:
        descriptor = os.open(arguments.save_key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(key.value + "\n")
        key.value = ""
        output.note(f"the key is in {arguments.save_key}")
    elif not output.as_json:
        output.console.print(f"key: {key.value}", soft_wrap=True)
        output.note("the key is shown this once; requests are signed with it")
