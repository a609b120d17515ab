"""The demo on a terminal: events as they come, then what was recorded and what holds."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from roomtape.v1 import event_pb2
from roomtape_service.cli.event_text import event_name, event_text, is_bad_news
from roomtape_service.cli.output import new_table
from roomtape_service.cli.texts import NANOSECONDS, show_size, show_span
from roomtape_service.demo.finding import Finding
from roomtape_service.demo.hearing import Heard, title
from roomtape_service.demo.judgement import Judgement
from roomtape_service.demo.script import Part
from roomtape_service.demo.timeline import style_of, timeline

__all__ = ["Report"]

_NAME_COLUMNS = 20


class Report:
    """Prints to `console`; `script` gives users their colours and words."""

    def __init__(self, console: Console, script: Sequence[Part]) -> None:
        self._console = console
        self._words = {part.user_id: part.clip.text for part in script}
        self._users = list(self._words)
        self._start_ns: int | None = None

    def event(self, event: event_pb2.Event) -> None:
        """One event, with the seconds since the first; who joins is quoted."""
        time_ns = event.event_time.ToNanoseconds()
        if self._start_ns is None:
            self._start_ns = time_ns
        seconds = (time_ns - self._start_ns) / NANOSECONDS
        user_id = _user(event)
        style = "red" if is_bad_news(event) else style_of(user_id, self._users)
        line = Text(f"  {seconds:6.2f} s  ", "dim")
        line.append(f"{event_name(event):<{_NAME_COLUMNS}}  {event_text(event).split('  file:')[0]}", style)
        self._console.print(line, soft_wrap=True)
        if event.type == event_pb2.EVENT_TYPE_PARTICIPANT_JOINED and user_id in self._words:
            quoted = Text(" " * 12 + f"“{self._words[user_id]}”", f"italic {style}")
            self._console.print(quoted, soft_wrap=True)

    def recorded(self, judgement: Judgement) -> None:
        """Who was recorded when, and every file with what was heard in it."""
        heard = judgement.heard
        if not heard:
            return
        self._console.print("\nWho was recorded when", style="bold")
        self._console.print(timeline([each.segment for each in heard], self._users))
        table = new_table(
            "file",
            "duration",
            "decoded",
            "size",
            "heard in it: correlation, begins at",
            right=("duration", "decoded", "size"),
        )
        for each in heard:
            table.add_row(
                title(each.segment),
                show_span(each.segment.duration.ToNanoseconds()),
                show_span(each.decoded_ns),
                show_size(each.segment.size_bytes),
                _heard_text(each),
                style=style_of(each.segment.user_id, self._users),
            )
        self._console.print(table)

    def judged(self, judgement: Judgement, *, verbose: bool) -> None:
        """What does not hold, or that all is well."""
        failed = [finding for finding in judgement.findings if not finding.ok]
        for finding in judgement.findings if verbose else failed:
            self._console.print(_finding_text(finding), soft_wrap=True)
        if judgement.ok:
            self._console.print(
                f"\nAll is well: {len(judgement.findings)} checks hold.", style="bold green", soft_wrap=True
            )
        else:
            text = f"\nNOT well: {len(failed)} of {len(judgement.findings)} checks failed."
            self._console.print(text, style="bold red", soft_wrap=True)
        if judgement.heard:
            self._console.print("\nTo listen:", style="bold")
        for each in judgement.heard:
            self._console.print(f"  {_short(each.path)}", soft_wrap=True)

    def proven(self, manifest: Path) -> None:
        """How to prove the files again."""
        self._console.print("\nTo prove the files against their manifest again:", style="bold")
        self._console.print(f"  roomtape verify {_short(manifest)}", soft_wrap=True)


def _short(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _user(event: event_pb2.Event) -> str:
    match event.WhichOneof("detail"):
        case "participant":
            return event.participant.user_id
        case "recording":
            return event.recording.recording.user_id
        case "segment":
            return event.segment.segment.user_id
        case _:
            return ""


def _heard_text(heard: Heard) -> str:
    if heard.fit is None:
        match = heard.matches.get(heard.segment.user_id)
        return f"{match.coefficient:.3f} at {match.lag_seconds:+.3f} s" if match else "nobody of the script"
    parts = [
        f"{user} {match.coefficient:.2f} at {match.lag_seconds:.3f} s"
        for user, match in heard.matches.items()
    ]
    return f"{', '.join(parts)}; together {heard.fit.explained:.1%}"


def _finding_text(finding: Finding) -> Text:
    mark, style = ("✓", "green") if finding.ok else ("✗", "red")
    return Text.assemble((f"  {mark} ", style), finding.what, (f"  ({finding.facts})", "dim"))
