"""What must hold after the demo; all is well when every finding is."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import av

from roomtape.v1 import event_pb2, segment_pb2, task_pb2
from roomtape_service.cli.enums import label
from roomtape_service.cli.event_text import event_name, is_bad_news
from roomtape_service.demo.finding import Finding
from roomtape_service.demo.hearing import Heard, hear, title
from roomtape_service.demo.performance import Performance
from roomtape_service.demo.script import MIXED_CONTAINERS, SINGLE_CONTAINERS

__all__ = ["Judgement", "judge"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The files as they were heard, and everything that was found."""

    heard: Sequence[Heard]
    findings: Sequence[Finding]

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return all(finding.ok for finding in self.findings)


def judge(performance: Performance) -> Judgement:
    """Compares the recording with what was spoken; decodes every file."""
    findings = [_task(performance.record.task), *_events(performance), _files(performance)]
    heard: list[Heard] = []
    for segment in sorted(performance.record.segments, key=_order):
        try:
            heard.append(hear(segment, performance.spoken))
        except (OSError, av.FFmpegError) as error:
            findings.append(Finding(f"{title(segment)}: it can be decoded", False, str(error)))
    for each in heard:
        findings += each.findings
    return Judgement(heard, findings)


def _order(segment: segment_pb2.Segment) -> tuple[int, str, int]:
    return (segment.kind, segment.user_id, segment.container)


def _task(task: task_pb2.Task) -> Finding:
    state = label(task_pb2.TaskState.DESCRIPTOR, task.state)
    reason = label(task_pb2.StopReason.DESCRIPTOR, task.stop_reason)
    ok = task.state == task_pb2.TASK_STATE_COMPLETED and task.stop_reason == task_pb2.STOP_REASON_API
    return Finding(
        "the task: it was stopped by its caller and is complete", ok, f"{state}, stopped by {reason}"
    )


def _events(performance: Performance) -> Iterator[Finding]:
    events = performance.events
    sequences = [event.sequence for event in events]
    task_sequences = [event.task_sequence for event in events if event.task_id]
    yield Finding(
        "the events: their numbers have no hole",
        sequences == list(range(1, len(sequences) + 1))
        and task_sequences == list(range(1, len(task_sequences) + 1)),
        f"1 to {len(sequences)}, those of the task 1 to {len(task_sequences)}",
    )
    last = event_name(events[-1]) if events else "nothing"
    yield Finding("the events: the last says that all files are stored", last == "task-files-complete", last)
    bad = [event_name(event) for event in events if is_bad_news(event)]
    yield Finding("the events: no gap, no interruption, no warning", not bad, ", ".join(bad) or "none")
    users = sorted(each.clip.user_id for each in performance.spoken)
    came, went = (
        sorted(event.participant.user_id for event in events if event.type == kind)
        for kind in (event_pb2.EVENT_TYPE_PARTICIPANT_JOINED, event_pb2.EVENT_TYPE_PARTICIPANT_LEFT)
    )
    yield Finding("the events: each speaker came and went once", came == went == users, ", ".join(came))


def _files(performance: Performance) -> Finding:
    expected = Counter(
        (each.clip.user_id, container) for each in performance.spoken for container in SINGLE_CONTAINERS
    )
    expected.update(("", container) for container in MIXED_CONTAINERS)
    segments = performance.record.segments
    found = Counter((segment.user_id, segment.container) for segment in segments)
    stored = all(segment.state == segment_pb2.SEGMENT_STATE_UPLOADED for segment in segments)
    facts = ", ".join(title(segment) for segment in segments)
    return Finding(
        "the files: one a speaker and format, one mix, all stored", found == expected and stored, facts
    )
