"""`roomtape serve`: the service on this machine, until Ctrl-C."""

import argparse
import asyncio
import json
import os
import sys
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

from roomtape_service import failpoints
from roomtape_service import settings as settings_module
from roomtape_service.locks import LockedError
from roomtape_service.observability.logging import configure
from roomtape_service.readiness import EXIT_UNUSABLE, Ready
from roomtape_service.settings import FIELDS, Settings, SettingsError
from roomtape_service.settings_sample import sample
from roomtape_service.supervisor import Supervisor

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One flag for each setting, and how to print."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML; else ROOMTAPE_CONFIG")
    parser.add_argument("--json", action="store_true", help="print lines of JSON for programs")
    parser.add_argument(
        "--sample", action="store_true", help="print a settings file with all defaults, and end"
    )
    group = parser.add_argument_group(
        "settings", "A flag goes before the environment (ROOMTAPE_…), that before the file."
    )
    for name, about in FIELDS.items():
        default = about.default_text or str(about.default)
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            default=argparse.SUPPRESS,
            metavar="VALUE",
            help=f"{about.help} Default: {default}.".replace("%", "%%"),
        )


def run(arguments: argparse.Namespace) -> int:
    """Serves until a signal; returns 0 after an ordered stop."""
    if arguments.sample:
        print(sample(), end="")
        return 0
    flags = {name: getattr(arguments, name) for name in FIELDS if hasattr(arguments, name)}
    try:
        settings = settings_module.load(flags, os.environ, arguments.config)
        configure(settings.log_level, settings.log_format, "supervisor")
        if settings.failpoints_file is not None:
            failpoints.arm(settings.failpoints_file)
        return asyncio.run(_serve(settings, as_json=arguments.json))
    except SettingsError as error:
        return _refuse(error.problems, as_json=arguments.json)
    except failpoints.FailpointsError as error:
        return _refuse([f"failpoints_file: {error}"], as_json=arguments.json)
    except LockedError as error:
        return _refuse([str(error)], as_json=arguments.json)
    except OSError as error:
        return _refuse([f"data_dir: {error.filename}: {error.strerror}"], as_json=arguments.json)


async def _serve(settings: Settings, *, as_json: bool) -> int:
    def show(ready: Ready) -> None:
        _show(settings, ready, as_json=as_json)

    # Children have their settings from the supervisor, not from the environment.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(settings_module.VARIABLE_PREFIX)
    }
    code = await Supervisor(settings, show, environment=environment).run()
    if code:
        print(f"roomtape ended with code {code}; its log says why.", file=sys.stderr)
    return code


def _show(settings: Settings, ready: Ready, *, as_json: bool) -> None:
    if as_json:
        facts = {
            "event": "ready",
            "listen": ready.listen,
            "http_listen": ready.http_listen,
            "data_dir": str(settings.data_dir),
            "pid": os.getpid(),
        }
        print(json.dumps(facts), flush=True)
        return
    scheme = "https" if settings.tls_certificate_file else "http"
    table = Table.grid(padding=(0, 2))
    table.add_row("gRPC", ready.listen, "TLS" if settings.tls_certificate_file else "without TLS")
    table.add_row("HTTP", f"{scheme}://{ready.http_listen}", "playback")
    table.add_row(
        "data", str(settings.data_dir), f"{settings.workers} worker{'' if settings.workers == 1 else 's'}"
    )
    if settings.create_default_application:
        table.add_row("application", settings.create_default_application, "")
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"roomtape {metadata.version('roomtape-service')} serves; Ctrl-C stops it.", style="bold")
    console.print(table)
    if not settings.api_keys:
        console.print("Without API keys everyone on this machine may call.", style="yellow")


def _refuse(problems: list[str], *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"event": "refused", "problems": problems}), flush=True)
    else:
        print("roomtape can't serve:", *(f"  - {problem}" for problem in problems), sep="\n", file=sys.stderr)
    return EXIT_UNUSABLE
