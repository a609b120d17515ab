"""Which users a task takes."""

from roomtape.v1 import task_pb2

__all__ = ["selects_audio"]


def selects_audio(subscription: task_pb2.Subscription, user_id: str) -> bool:
    """Whether `user_id`'s audio is in the scope of `subscription`.

    An allow list takes only its users; a block list all but its users; no list everyone (GME
    SubscribeRecordUserIds).
    """
    audio = subscription.audio
    if audio.allow_user_ids:
        return user_id in audio.allow_user_ids
    return user_id not in audio.block_user_ids
