"""`roomtape webhooks`: receivers of events, and what became of what they were sent."""

import argparse

from roomtape_service.cli.options import add_actions
from roomtape_service.cli.webhook_listen import add_listen_arguments, listen

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions."""
    add_actions(
        parser,
        {"listen": ("receive webhooks here, verify them and show them", add_listen_arguments)},
    )


def run(arguments: argparse.Namespace) -> int:
    """Does the action."""
    return listen(arguments)
