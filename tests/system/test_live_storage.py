"""Vendors' own storage, where somebody gives a bucket to try.

LIVE_STORAGE_SETTINGS names a file with a JSON list of StorageSettings, as the contract has them:

    [{"objectStore": {"vendor": "STORAGE_VENDOR_COS", "bucket": "tapes-1250000000", "region": "ap-guangzhou",
                      "credentials": {"accessKeyId": "…", "secretAccessKey": {"value": "…"}}}}]
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from google.protobuf import json_format

from roomtape.v1 import storage_pb2
from roomtape_service.ids import RandomIds
from roomtape_service.storage.check import StorageCheck
from roomtape_service.storage.conformance import CHECKS
from roomtape_service.storage.secrets import SecretBox
from roomtape_service.storage.settings import check_settings
from roomtape_service.storage.stores import Stores

pytestmark = pytest.mark.system

VARIABLE = "LIVE_STORAGE_SETTINGS"


def _given() -> Sequence[storage_pb2.StorageSettings]:
    path = os.environ.get(VARIABLE)
    entries = json.loads(Path(path).read_text("utf-8")) if path else []
    return [json_format.ParseDict(entry, storage_pb2.StorageSettings()) for entry in entries]


def _name(settings: storage_pb2.StorageSettings) -> str:
    store = settings.object_store
    return f"{storage_pb2.StorageVendor.Name(store.vendor)}-{store.region}"


# Parts go over a network that may be slow.
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not os.environ.get(VARIABLE), reason=f"{VARIABLE} names no buckets to try")
@pytest.mark.parametrize("settings", _given(), ids=_name)
async def test_a_vendors_bucket(settings: storage_pb2.StorageSettings, tmp_path: Path) -> None:
    assert check_settings(settings) == []
    stores = Stores(tmp_path, SecretBox(bytes(32)))
    try:
        response = await StorageCheck(stores, RandomIds()).check(settings)
        assert response.ok, [(step.name, step.error_code, step.message) for step in response.steps]
        store = stores.store(settings)
        problems: dict[str, str] = {}
        for name, check in CHECKS.items():
            (folder := tmp_path / name).mkdir()
            try:
                await check(store, folder)
            except Exception as error:
                problems[name] = repr(error)
        assert problems == {}
    finally:
        await stores.aclose()
