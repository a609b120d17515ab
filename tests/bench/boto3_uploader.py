"""A process that puts files into a bucket with boto3's s3transfer as it comes; spoken with like `uploader`."""

import json
import random
import sys
import time
from pathlib import Path

import boto3
from botocore.config import Config
from s3transfer.manager import TransferConfig, TransferManager

from tests.bench.processes import MIB

_REGION = "us-east-1"


def main() -> None:
    """Answers until stdin ends."""
    folder, endpoint, bucket, access_key_id, secret_access_key = sys.argv[1:]
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=_REGION,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        config=Config(s3={"addressing_style": "path"}),
    )
    _say(ready=1)
    turn = 0
    while order := sys.stdin.readline().split():
        count, size_mib = int(order[0]), int(order[1])
        path = Path(folder) / f"{size_mib}.bin"
        if not path.exists():
            path.write_bytes(random.Random(size_mib).randbytes(size_mib * MIB))
        _say(filled=1)
        sys.stdin.readline()
        turn += 1
        start = time.perf_counter()
        with TransferManager(client, TransferConfig()) as manager:
            transfers = [
                manager.upload(str(path), bucket, f"boto3/{turn}/{number}.wav") for number in range(count)
            ]
            for transfer in transfers:
                transfer.result()
        _say(seconds=time.perf_counter() - start)


def _say(**facts: float) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
