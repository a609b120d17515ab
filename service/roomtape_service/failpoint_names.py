"""The closed set of failpoints: each place that `failpoints.hit` is called with, and what happens there.

A commit is hit before and after: `commit:<name>` and `commit:<name>:after`, with the names of `COMMITS`, which are the
unit of work's function below `roomtape_service`, or what `Database.write` is told. Tests compare both with the code.
"""

from collections.abc import Mapping
from typing import Final

__all__ = ["COMMITS", "FAILPOINTS"]

FAILPOINTS: Final[Mapping[str, str]] = {
    # A worker and its segments.
    "generation.appear": "a worker's new folder, with its lock, gets the name under which recovery finds it",
    "segment.abandon": "a file of a segment that never had a checkpoint is removed",
    "segment.finish": "the files of a written segment get their headers, tags and hashes",
    "segment.close": "the closing record is written into a finished segment's journal",
    # Recovery.
    "recovery.forget": "a file of a segment without a checkpoint is removed",
    "recovery.forget_journal": "the journal of a segment without a checkpoint is removed",
    "recovery.close": "the closing record is written into the journal of a segment that recovery finished",
    "recovery.aside": "a file that recovery can't use is moved aside",
    "spool.keep_aside": "the media of a file that was given up is moved aside",
    "joined.remove": "a file that was to be joined, and is not wanted, is removed",
    # What is held of publishers who left.
    "departed.keep": "what is held of a track gets the name under which the next start finds it",
    "departed.forget": "what was held of a track is removed, since its recordings have it",
    # The spool, after uploads.
    "spool.remove_media": "a media file that is in its store is removed",
    "spool.remove_journal": "the journal of a segment whose files are stored is removed",
    "spool.remove_lock": "the lock in an empty folder of a dead worker is removed",
    "spool.remove_folder": "an empty folder of a dead worker is removed",
    # Stores.
    "disk.appear": "an object that is whole gets its name in the folder of a disk store",
    "disk.forget": "what an attempt to write an object of a disk store left is removed",
    "disk.abort": "a multipart upload of a disk store is removed",
    "disk.delete": "an object of a disk store is removed",
    "s3.put": "an object is sent in one request",
    "s3.put:after": "the object that was sent in one request is there, and nobody knows yet",
    "s3.begin": "a multipart upload is begun",
    "s3.begin:after": "a multipart upload is begun, and nobody knows its id yet",
    "s3.part": "a part is sent",
    "s3.part:after": "the store has a part, and nobody knows its tag yet",
    "s3.complete": "a multipart upload is completed",
    "s3.complete:after": "an object that came in parts is there, and nobody knows yet",
    "s3.abort": "a multipart upload is aborted",
    "s3.delete": "an object of a bucket is removed",
    # The node.
    "clock.keep": "the file that says where UTC stands gets its name",
    # The supervisor.
    "supervisor.ready": "the file that says where the service is gets its name",
}

COMMITS: Final[Mapping[str, str]] = {
    "app.Node._create_default_application.work": "the application that the settings name is made",
    "events.log.EventLog.compact": "old events go",
    "events.retention.Retention.purge": "old replies go",
    "library.abandoning.Abandoning.abandon": "a file becomes ABANDONED",
    "library.abandoning.Abandoning.forget": "the spool file of a file that was given up is forgotten",
    "library.deleting.Deleting.delete.work": "a file becomes DELETED",
    "library.expiry.Expiry._expire.expire": "files become EXPIRED",
    "library.joining.Joining.join.work": "segments are ordered to be joined",
    "library.joins.Joins._complete.complete": "a joined file becomes SPOOLED",
    "library.joins.Joins._lose.lose": "a file that can't be joined becomes LOST",
    "library.removing.Removals._delay.delay": "objects that a store did not give up wait",
    "library.removing.Removals._done.forget": "objects that are gone from their store are forgotten",
    "library.removing.Removals.hasten": "objects that a store did not give up are due to be removed",
    "storage.expiring.ExpiringCredentials._tell.tell": "an application is told that its credentials expire",
    "manifest.writer.ManifestWriter._take_away.forget": "the manifest of a task without files is forgotten",
    "manifest.writer.ManifestWriter._attempt.finish": "a manifest is written, and with the last a task COMPLETED",
    "manifest.writer.ManifestWriter.add_missing": "tasks of before there were manifests get one to be written",
    "manifest.writer.ManifestWriter.delay": "a failed attempt to write a manifest is kept",
    "manifest.writer.ManifestWriter.retry_now": "waiting manifests of a changed application are due",
    "rooms.participants.Participants._join.work": "a participant joins",
    "rooms.participants.Participants._leave.work": "a participant leaves",
    "rooms.participants.Participants._mute.work": "a track is muted or unmuted",
    "rooms.participants.Participants._remove.work": "a participant is removed",
    "rooms.rooms.Rooms._close.work": "a room closes",
    "rooms.rooms.Rooms._open.work": "a room is made",
    "rooms.rooms.Rooms.answered_before": "a repeated order for a closed room is answered",
    "rpc.applications.ApplicationServicer.CreateApplication.work": "an application is made",
    "rpc.applications.ApplicationServicer.UpdateApplication.work": "an application is changed",
    "storage.attempt.Attempts._begin.begin": "a segment becomes UPLOADING",
    "storage.attempt.Attempts.remove_file": "a spool file that is gone is forgotten",
    "storage.attempt.Attempts.send_settled.take": "a part of a growing file shows that a store takes again",
    "storage.attempt.Attempts.upload.finish": "a segment becomes UPLOADED",
    "storage.leftovers.Leftovers.forget": "a multipart upload that was aborted is forgotten",
    "storage.leftovers.Leftovers.hasten": "multipart uploads that a store did not abort are due again",
    "storage.leftovers.Leftovers.postpone": "multipart uploads that a store did not abort wait",
    "storage.multipart.Multiparts._leave.leave": "a multipart upload goes on no more",
    "storage.multipart.Multiparts._send.add_part": "a part is about to be sent",
    "storage.multipart.Multiparts._keep_tag.set_tag": "a part was sent",
    "storage.multipart.Multiparts._take_up.add": "a multipart upload is about to be begun",
    "storage.multipart.Multiparts._take_up.set_upload_id": "a multipart upload was begun",
    "storage.notices.Notices.delay.delay": "a failed attempt is told",
    "storage.notices.Notices.fail.fail": "a part of a growing file that was not taken is told",
    "storage.notices.Notices.switch.switch": "segments go to the secondary store",
    "storage.notices.Notices.tell.tell": "segments that wait for a failed one are told",
    "storage.upload.Uploads.retry_now": "waiting segments of a changed application are due",
    "tasks.facts.Facts.completed": "a segment becomes SPOOLED",
    "tasks.facts.Facts.gap": "a gap is told",
    "tasks.facts.Facts.recovered": "a recovered segment becomes SPOOLED, and its interruption is told",
    "tasks.facts.Facts.searched": "files of a recording that are not on the spool become LOST",
    "tasks.facts.Facts.started": "a segment starts",
    "tasks.facts.Facts.stopped": "a recording ends",
    "tasks.facts.Facts.warning": "a warning is told",
    "tasks.modifying.Modifying.modify.before": "a repeated order to change an ended task is answered",
    "tasks.modifying.Modifying.modify.work": "a task is changed",
    "tasks.spool_guard.SpoolGuard.warn": "applications are told that the spool is full, or nearly",
    "tasks.starting.Starting.start.before": "a repeated order to start is answered",
    "tasks.starting.Starting.start.work": "a task starts",
    "tasks.stopping.Stopping.expire.work": "a task ends for which nobody came back",
    "tasks.stopping.Stopping.stop.before": "a repeated order to stop is answered",
    "tasks.stopping.Stopping.stop.work": "a task is stopped",
    "tasks.unended.Unended._finish.finish": "recordings end that the last node did not live to end, and lack nothing",
    "tasks.unended.Unended._tell.tell": "what such recordings lack, and nobody sends, is told",
}
