"""The rows of the table, in its order: each measures one thing and gives a figure for each of its peers."""

from collections.abc import Callable, Mapping, Sequence

from tests.bench.bench import Bench
from tests.bench.figures import Figure
from tests.bench.rows import (
    append,
    describe,
    fanout_5000,
    memory_single,
    mix_5,
    mix_25,
    mix_25_dtx,
    opus_passthrough,
    publishers_per_core,
    recovery_500,
    replay,
    single_mp3,
    stop_to_completed,
    upload_memory,
    upload_stall,
    upload_throughput,
    webhooks,
)

__all__ = ["ROWS"]

ROWS: Mapping[str, Callable[[Bench], Sequence[Figure]]] = {
    "single_mp3": single_mp3.measure,
    "mix_5": mix_5.measure,
    "mix_25": mix_25.measure,
    "mix_25_dtx": mix_25_dtx.measure,
    "opus_passthrough": opus_passthrough.measure,
    "describe": describe.measure,
    "fanout_5000": fanout_5000.measure,
    "replay": replay.measure,
    "append": append.measure,
    "publishers_per_core": publishers_per_core.measure,
    "memory_single": memory_single.measure,
    "recovery_500": recovery_500.measure,
    "stop_to_completed": stop_to_completed.measure,
    "upload_throughput": upload_throughput.measure,
    "upload_stall": upload_stall.measure,
    "upload_memory": upload_memory.measure,
    "webhooks": webhooks.measure,
}
