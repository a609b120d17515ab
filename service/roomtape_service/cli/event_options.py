"""Arguments that choose events, for the commands that show them."""

import argparse

from roomtape.v1 import event_pb2
from roomtape_service.cli.options import choice, comma_separated, read_label, reader

__all__ = ["add_filter_arguments", "event_filter"]


def add_filter_arguments(parser: argparse.ArgumentParser, of_one_task: str) -> None:
    """`of_one_task` says what is special about the events of one task."""
    parser.add_argument("--room", action="append", default=[], help="only of this room; may be repeated")
    parser.add_argument(
        "--task", action="append", default=[], help=f"only of this task; may be repeated; {of_one_task}"
    )
    parser.add_argument(
        "--type",
        type=comma_separated(choice(event_pb2.EventType.DESCRIPTOR)),
        action="extend",
        default=[],
        metavar="TYPE[,TYPE]",
        help="only of these types, such as segment-uploaded,task-files-complete",
    )
    parser.add_argument(
        "--label",
        type=reader(read_label),
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only of tasks with this label; may be repeated",
    )


def event_filter(arguments: argparse.Namespace) -> event_pb2.EventFilter:
    """What was chosen."""
    return event_pb2.EventFilter(
        room_ids=arguments.room,
        task_ids=arguments.task,
        types=arguments.type,
        labels=dict(arguments.label),
    )
