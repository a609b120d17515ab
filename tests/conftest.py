"""What all tests share."""

import os

# Before anything imports gRPC: its core logs to stderr.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

pytest_plugins = ("tests.support.databases", "tests.support.failpoints")
