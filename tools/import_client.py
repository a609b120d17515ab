"""Imports all stubs and what the client offers without extras."""

import importlib
import pkgutil
from importlib.metadata import version

import roomtape.client
import roomtape.v1

stubs = [module.name for module in pkgutil.iter_modules(roomtape.v1.__path__, "roomtape.v1.")]
for name in stubs:
    importlib.import_module(name)
print(
    f"{roomtape.client.__name__} and {len(stubs)} stub modules import "
    f"on grpcio {version('grpcio')} and protobuf {version('protobuf')}"
)
