"""`python -m roomtape_service.recording.joining`: makes one file, as `job` says, and ends.

It gives way to whatever records. When its node is gone, its input ends, and so does it.
"""

import hashlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from roomtape_service.recording.joining.job import (
    JoinFailure,
    JoinFault,
    JoinJob,
    JoinResult,
    encode_line,
)
from roomtape_service.recording.joining.ogg import join_ogg
from roomtape_service.recording.joining.source import Source, SourceDiffers, sources_of
from roomtape_service.recording.joining.wav import join_wav
from roomtape_service.recording.vocabulary import Container

__all__ = ["join", "main"]

_NICENESS = 15
_CHUNK_BYTES = 1 << 20


def join(job: JoinJob, stream: BinaryIO) -> JoinResult | JoinFailure:
    """Makes the file of a job out of the sources that come by `stream`. Raises EOFError when they do not.

    What a failure leaves of the file is for the caller to remove.
    """
    path = Path(job.path)
    try:
        samples, delay = _join(job, sources_of(stream, job.sources))
        with path.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256")
        return JoinResult(path.stat().st_size, digest.hexdigest(), samples, delay)
    except SourceDiffers as error:
        return JoinFailure(JoinFault.SOURCE_DIFFERS, str(error), error.index)
    except OSError as error:
        return JoinFailure(JoinFault.DISK, f"{error.filename or path}: {error.strerror or error}")


def _join(job: JoinJob, sources: Iterable[Source]) -> tuple[int, int]:
    """Makes the file; what it plays, and the delay of its encoder, in samples."""
    match job.container:
        case Container.WAV:
            return join_wav(job, sources), 0
        case Container.OGG:
            return join_ogg(job, sources), 0
        case Container.MP3:
            # Decoder and encoder are most of what a process needs to start, and only this one makes use of them.
            from roomtape_service.recording.containers.mp3 import MP3_DELAY
            from roomtape_service.recording.joining.mp3 import join_mp3

            return join_mp3(job, sources), MP3_DELAY
        case Container.AAC | Container.M4A:
            from roomtape_service.recording.joining.aac import join_aac

            return join_aac(job, sources)


def main() -> int:
    """The process; returns its exit code."""
    os.nice(_NICENESS)
    stream = sys.stdin.buffer
    try:
        answer = join(JoinJob.read(stream.readline()), stream)
    except EOFError:
        return 1
    sys.stdout.buffer.write(encode_line(answer))
    sys.stdout.buffer.flush()
    # Who writes to a closed socket does not get to read what was answered.
    while stream.read(_CHUNK_BYTES):
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
