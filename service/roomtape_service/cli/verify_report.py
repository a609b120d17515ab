"""What was found by a verification, for people and for programs."""

from datetime import UTC, datetime

from rich.table import Table

from roomtape_service.cli.output import new_table
from roomtape_service.cli.texts import show_size, show_span
from roomtape_service.clock import NANOSECONDS
from roomtape_service.manifest.encoding import show_time
from roomtape_service.manifest.findings import UNFINISHED
from roomtape_service.manifest.holes import Hole
from roomtape_service.manifest.model import File, Recording
from roomtape_service.manifest.verification import CheckedFile, Report

__all__ = ["file_json", "hole_table", "report_json", "summary", "verify_table"]


def verify_table(report: Report) -> Table:
    """One row a file."""
    table = new_table(
        "of", "#", "file", "start", "duration", "size", "result", right=("#", "duration", "size")
    )
    for each in report.files:
        file = each.file
        table.add_row(
            _whose(each.recording),
            _number(file, each.segment_id),
            file.container.lower(),
            _clock(file.start_ns),
            show_span(_length_ns(file)) if file.end_ns is not None else "",
            show_size(file.size_bytes) if file.size_bytes else "",
            _result(each),
        )
    return table


def hole_table(report: Report) -> Table:
    """One row a hole."""
    table = new_table("of", "after #", "nothing from", "to", "for", "because", right=("after #", "for"))
    for recording, hole in report.holes:
        table.add_row(
            _whose(recording),
            str(hole.after),
            _clock(hole.start_ns),
            _clock(hole.end_ns),
            show_span(hole.end_ns - hole.start_ns),
            hole.unexplained or ", ".join(hole.reasons),
        )
    return table


def summary(report: Report) -> str:
    """The last line."""
    manifest = report.manifest
    if manifest is None:
        return "nothing could be verified"
    checked = [each.file for each in report.files if each.was_checked]
    size = show_size(sum(file.size_bytes for file in checked))
    media = show_span(sum(map(_length_ns, checked)))
    good = sum(1 for each in report.files if each.was_checked and not each.problems)
    waiting = sum(1 for each in report.files if each.file.state in UNFINISHED)
    state = "" if manifest.complete else f"; the task is {manifest.state}, {waiting} files are on their way"
    if report.ok:
        return f"all is well: {good} files, {media}, {size}, as task {manifest.task_id} says{state}"
    count = len(report.findings)
    problems = "1 thing is" if count == 1 else f"{count} things are"
    return f"{problems} wrong with task {manifest.task_id}: {good} of {len(checked)} files are well{state}"


def file_json(checked: CheckedFile) -> dict[str, object]:
    """One file for programs."""
    return {
        "file": {
            "recordingId": checked.recording.recording_id,
            "userId": checked.recording.user_id,
            "segmentId": checked.segment_id,
            "fileId": checked.file.file_id,
            "objectKey": checked.file.object_key,
            "state": checked.file.state,
            "checked": checked.was_checked,
            "problems": list(checked.problems),
        }
    }


def report_json(report: Report) -> dict[str, object]:
    """Everything else for programs; the last line."""
    manifest = report.manifest
    return {
        "ok": report.ok,
        "taskId": manifest.task_id if manifest else "",
        "complete": bool(manifest and manifest.complete),
        "files": sum(1 for each in report.files if each.was_checked),
        "holes": [_hole_json(recording, hole) for recording, hole in report.holes],
        "findings": [{"about": each.about, "problem": each.problem} for each in report.findings],
    }


def _hole_json(recording: Recording, hole: Hole) -> dict[str, object]:
    return {
        "recordingId": recording.recording_id,
        "userId": recording.user_id,
        "afterSegmentId": hole.after,
        "startTime": show_time(hole.start_ns),
        "endTime": show_time(hole.end_ns),
        "reasons": list(hole.reasons),
        "unexplained": hole.unexplained,
    }


def _whose(recording: Recording) -> str:
    return recording.user_id or "the mix"


def _number(file: File, segment_id: int) -> str:
    return f"{segment_id}+{file.joined_segments - 1}" if file.joined_segments else str(segment_id)


def _result(checked: CheckedFile) -> str:
    if checked.problems:
        return "; ".join(checked.problems)
    return "well" if checked.was_checked else checked.file.state.lower()


def _length_ns(file: File) -> int:
    return file.sample_count * NANOSECONDS // file.sample_rate_hz if file.sample_rate_hz else 0


def _clock(time_ns: int) -> str:
    moment = datetime.fromtimestamp(time_ns / NANOSECONDS, UTC).astimezone()
    return moment.strftime("%H:%M:%S.%f")[:-3]
