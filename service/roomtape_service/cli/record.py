"""`roomtape record`: start, stop, change and see tasks."""

import argparse

from google.protobuf.field_mask_pb2 import FieldMask

from roomtape.client import Client
from roomtape.v1 import media_pb2, task_pb2
from roomtape_service.cli.calling import CommandError, ExitCode, call
from roomtape_service.cli.options import (
    add_actions,
    add_client_arguments,
    choice,
    comma_separated,
    read_label,
    reader,
)
from roomtape_service.cli.output import Output
from roomtape_service.cli.tables import segment_table, task_table
from roomtape_service.cli.texts import read_span

__all__ = ["add_arguments", "run"]

_MODES = "single|mixed|single-and-mixed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions."""
    add_actions(
        parser,
        {
            "start": ("record a room", _add_start),
            "stop": ("stop a task", _add_stop),
            "modify": ("change what a running task records", _add_modify),
            "describe": ("show a task with its files, or the running tasks of a room", _add_describe),
            "list": ("list tasks, newest first", _add_list),
        },
    )


def run(arguments: argparse.Namespace) -> int:
    """Does the action."""
    work = {"start": _start, "stop": _stop, "modify": _modify, "describe": _describe, "list": _list}
    return call(arguments, lambda client, output: work[arguments.action](arguments, client, output))


def _add_start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("room", metavar="ROOM", help="id of the open room")
    _add_mode(parser, required=True)
    _add_whom(parser.add_mutually_exclusive_group())
    containers = comma_separated(choice(media_pb2.Container.DESCRIPTOR))
    parser.add_argument(
        "--single",
        type=containers,
        default=[],
        metavar="LIST",
        help="containers of the single files, out of mp3,ogg,wav,aac,m4a; default: mp3",
    )
    parser.add_argument(
        "--mixed",
        type=containers,
        default=[],
        metavar="LIST",
        help="those of the mix, all but ogg; default: mp3",
    )
    parser.add_argument(
        "--segment",
        type=reader(read_span),
        metavar="SPAN",
        help="a file ends when it is this long; default: 2h",
    )
    parser.add_argument(
        "--retention",
        type=reader(read_span),
        metavar="SPAN",
        help="how long the files are kept: whole days up to 1500d, 0 for ever; default: the application's",
    )
    parser.add_argument(
        "--bitrate", type=int, default=0, metavar="BPS", help="of what is encoded; default: 64000"
    )
    parser.add_argument(
        "--sample-rate",
        type=int,
        default=0,
        metavar="HZ",
        help="of the files; default: the track's, 48000 of the mix",
    )
    parser.add_argument(
        "--channels",
        type=int,
        default=0,
        metavar="N",
        help="of the files, 1 or 2; default: the track's, 1 of the mix",
    )
    parser.add_argument(
        "--client-task-id", default="", metavar="ID", help="your own id; starting it twice is one task"
    )
    parser.add_argument(
        "--label",
        type=reader(read_label),
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="may be repeated",
    )
    add_client_arguments(parser)


def _add_stop(parser: argparse.ArgumentParser) -> None:
    _add_task(parser)
    parser.add_argument("--wait", action="store_true", help="until every file is in the store; show them")
    add_client_arguments(parser)


def _add_modify(parser: argparse.ArgumentParser) -> None:
    _add_task(parser)
    _add_mode(parser, required=False)
    whom = parser.add_mutually_exclusive_group()
    _add_whom(whom)
    whom.add_argument("--everyone", action="store_true", help="no list any more")
    add_client_arguments(parser)


def _add_describe(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("task", metavar="TASK", nargs="?", help="id of the task")
    which.add_argument("--room", help="the running tasks of this room")
    add_client_arguments(parser)


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--room", default="", help="only of this room")
    parser.add_argument(
        "--state",
        type=comma_separated(choice(task_pb2.TaskState.DESCRIPTOR)),
        default=[],
        metavar="LIST",
        help="only in these states, such as recording,finalizing",
    )
    add_client_arguments(parser)


def _add_task(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", metavar="TASK", help="id of the task")


def _add_mode(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--mode",
        type=choice(task_pb2.RecordMode.DESCRIPTOR),
        required=required,
        metavar=_MODES,
        help="a file for each user, one for all together, or both",
    )


def _add_whom(group: "argparse._MutuallyExclusiveGroup") -> None:
    group.add_argument(
        "--allow", action="append", default=[], metavar="USER", help="only this user; may be repeated"
    )
    group.add_argument(
        "--block", action="append", default=[], metavar="USER", help="all but this user; may be repeated"
    )


async def _start(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    request = task_pb2.StartRecordRequest(
        app_id=arguments.app,
        room_id=arguments.room,
        mode=arguments.mode,
        output=task_pb2.OutputSettings(
            single_containers=arguments.single,
            mixed_containers=arguments.mixed,
            segment_duration=arguments.segment,
            audio_bitrate_bps=arguments.bitrate,
            audio_sample_rate_hz=arguments.sample_rate,
            audio_channels=arguments.channels,
            retention=arguments.retention,
        ),
        client_task_id=arguments.client_task_id,
        labels=dict(arguments.label),
    )
    if arguments.allow or arguments.block:
        request.subscription.audio.CopyFrom(_users(arguments))
    reply = await client.recording.StartRecord(request)
    output.show(reply, task_table([reply.task]))
    output.note(
        f"see what happens with: roomtape watch --task {reply.task.task_id} --after {reply.resume_token}"
    )
    return ExitCode.DONE


async def _stop(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    request = task_pb2.StopRecordRequest(app_id=arguments.app, task_id=arguments.task)
    reply = await client.recording.StopRecord(request)
    if not arguments.wait:
        output.show(reply, task_table([reply.task]))
        return ExitCode.DONE
    output.note("stopped; waiting for the files")
    everything = await client.wait_until_complete(arguments.app, arguments.task)
    _show_everything(everything, output)
    return ExitCode.DONE if everything.task.state == task_pb2.TASK_STATE_COMPLETED else ExitCode.FAILED


async def _modify(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    request = task_pb2.ModifyRecordInfoRequest(app_id=arguments.app, task_id=arguments.task)
    mask = FieldMask()
    if arguments.mode is not None:
        request.mode = arguments.mode
        mask.paths.append("mode")
    if arguments.allow or arguments.block or arguments.everyone:
        request.subscription.audio.CopyFrom(_users(arguments))
        mask.paths.append("subscription")
    if not mask.paths:
        raise CommandError("nothing to change; give --mode, --allow, --block or --everyone")
    request.update_mask.CopyFrom(mask)
    reply = await client.recording.ModifyRecordInfo(request)
    output.show(reply, task_table([reply.task]))
    return ExitCode.DONE


async def _describe(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    if arguments.task:
        request = task_pb2.DescribeRecordInfoRequest(app_id=arguments.app, task_id=arguments.task)
        _show_everything(await client.recording.DescribeRecordInfo(request), output)
        return ExitCode.DONE
    of_room = task_pb2.DescribeTaskInfoRequest(app_id=arguments.app, room_id=arguments.room)
    tasks = (await client.recording.DescribeTaskInfo(of_room)).tasks
    output.show_all(tasks, task_table(tasks), "no task is running in this room")
    return ExitCode.DONE


async def _list(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    request = task_pb2.ListTasksRequest(app_id=arguments.app, room_id=arguments.room, states=arguments.state)
    tasks = [task async for task in client.list_tasks(request)]
    output.show_all(tasks, task_table(tasks), "no tasks")
    return ExitCode.DONE


def _show_everything(reply: task_pb2.DescribeRecordInfoResponse, output: Output) -> None:
    output.show(reply, task_table([reply.task]))
    if not output.as_json:
        output.console.print()
        output.show_all(reply.segments, segment_table(reply.segments), "no files yet")


def _users(arguments: argparse.Namespace) -> task_pb2.UserFilter:
    return task_pb2.UserFilter(allow_user_ids=arguments.allow, block_user_ids=arguments.block)
