"""What the operator decides: parsed once, frozen, refused with every problem at once.

A value comes from the flag, else the environment, else the file, else its default. `FIELDS` says of each
setting how it is read, what it defaults to and what it means; flags, environment variables,
`service/sample.toml` and the help are made of it.
"""

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from roomtape_service.settings_sources import CredentialSource, credential_sources
from roomtape_service.settings_values import (
    Address,
    ApiKey,
    Network,
    api_keys,
    application,
    choice,
    count,
    database_url,
    host_and_port,
    networks,
    number,
    path,
    url,
)

__all__ = [
    "CLIENT_VARIABLES",
    "CONFIG_VARIABLE",
    "FIELDS",
    "VARIABLE_PREFIX",
    "Address",
    "ApiKey",
    "Network",
    "Settings",
    "SettingsError",
    "dump",
    "load",
    "parse",
    "variable",
    "with_addresses",
]

VARIABLE_PREFIX = "ROOMTAPE_"
# What a Unix socket's address holds everywhere.
_MAX_SOCKET_BYTES = 103

CONFIG_VARIABLE = "ROOMTAPE_CONFIG"

# Read by the commands that call a server; not ours to refuse.
CLIENT_VARIABLES = frozenset({"ROOMTAPE_SERVER", "ROOMTAPE_API_KEY", "ROOMTAPE_APP", "ROOMTAPE_WEBHOOK_KEY"})


class SettingsError(Exception):
    """Settings that can't be used; `problems` has one text each, saying which, what value, and what to do."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class About:
    """How one setting is read. `default` is a raw value, or makes one out of the settings before it."""

    read: Callable[[object], object]
    default: object | Callable[[Mapping[str, object]], object]
    help: str
    default_text: str = ""


def _about(
    read: Callable[[object], object],
    default: object | Callable[[Mapping[str, object]], object],
    help: str,
    default_text: str = "",
) -> dict[str, About]:
    return {"about": About(read, default, help, default_text)}


def _below_data_dir(name: str, scheme: str = "") -> Callable[[Mapping[str, object]], object]:
    return lambda values: f"{scheme}{values['data_dir']}/{name}"


def _cores(_values: Mapping[str, object]) -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _own_url(values: Mapping[str, object]) -> str:
    scheme = "https" if values.get("tls_certificate_file") else "http"
    address = Address.read(values["http_listen"])
    if address.wildcard:
        # Nobody can call 0.0.0.0: who reaches gRPC under a name reaches HTTP under it too.
        host = str(values["advertise"]).rpartition(":")[0]
        return f"{scheme}://{host}:{address.port}"
    return f"{scheme}://{address}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one machine's service, defaults filled in. Made by `load` or `parse`, never by hand."""

    data_dir: Path = field(
        metadata=_about(
            path, "roomtape-data", "Folder of everything the service keeps: database, spool, files, keys."
        )
    )
    listen: Address = field(
        metadata=_about(
            Address.read,
            "127.0.0.1:7400",
            "Where gRPC is served. Off this machine only with TLS and API keys.",
        )
    )
    tls_certificate_file: Path | None = field(
        metadata=_about(path, None, "PEM file with the certificate chain for gRPC and HTTP.", "no TLS")
    )
    tls_key_file: Path | None = field(
        metadata=_about(path, None, "PEM file with the private key of the certificate.", "no TLS")
    )
    http_listen: Address = field(
        metadata=_about(
            Address.read, "127.0.0.1:7401", "Where files are played from. Off this machine only with TLS."
        )
    )
    advertise: str = field(
        metadata=_about(
            host_and_port,
            lambda values: str(values["listen"]),
            "The host:port under which callers reach gRPC. Playback URLs have its host while http_listen names none.",
            "listen",
        )
    )
    public_url: str = field(
        metadata=_about(url, _own_url, "Base of playback URLs, as callers reach HTTP.", "http_listen")
    )
    api_keys: tuple[ApiKey, ...] = field(
        metadata=_about(
            api_keys,
            (),
            "Who may call: SHA-256 of each key in hexadecimal, and its applications, `*` for all. "
            "Without keys everyone on this machine may call.",
            "none",
        )
    )
    workers: int = field(metadata=_about(count(1, 256), _cores, "Processes that encode.", "one per core"))
    database_url: str = field(
        metadata=_about(
            database_url,
            _below_data_dir("roomtape.db", "sqlite:///"),
            "`sqlite:///path` or `postgresql://user:password@host/name`.",
            "roomtape.db in data_dir",
        )
    )
    storage_root: Path = field(
        metadata=_about(
            path, _below_data_dir("files"), "Folder below which disk stores have theirs.", "files in data_dir"
        )
    )
    secret_key_file: Path = field(
        metadata=_about(
            path,
            _below_data_dir("secret.key"),
            "File with the key that encrypts credentials; made when missing. Keep a copy elsewhere.",
            "secret.key in data_dir",
        )
    )
    credential_sources: tuple[CredentialSource, ...] = field(
        metadata=_about(
            credential_sources,
            (),
            "Where applications may have storage credentials from that they only name: of type `file`, "
            "`environment` or `web_identity`, each with the applications that may use it, `*` for all.",
            "none",
        )
    )
    create_default_application: str = field(
        metadata=_about(
            application,
            "",
            "Id of an application that is created at start if it is missing.",
            "none is created",
        )
    )
    durability: str = field(
        metadata=_about(
            choice("kernel", "power"),
            "kernel",
            "What acknowledged frames survive: `kernel` the death of processes, `power` also of the machine.",
        )
    )
    spool_quota_bytes: int = field(
        metadata=_about(
            count(0, 1 << 60),
            0,
            "Bytes that segments may take on this machine before they are in a store. 0: what their disk has room for.",
        )
    )
    spool_warn_percent: float = field(
        metadata=_about(
            number(1, 99),
            75.0,
            "How full that may be before applications with running tasks get a WARNING, in percent.",
        )
    )
    spool_refuse_percent: float = field(
        metadata=_about(
            number(1, 100), 90.0, "How full that may be before new tasks are refused, in percent."
        )
    )
    spool_reserve_bytes: int = field(
        metadata=_about(
            count(1 << 20, 1 << 50),
            64 << 20,
            "Bytes kept free on that disk, for the database and for finishing files: with less, recording pauses.",
        )
    )
    spool_mismatch: str = field(
        metadata=_about(
            choice("refuse", "accept"),
            "refuse",
            "What to do at start when the spool is not the one that the database knows, say because its disk is not "
            "mounted: `refuse` to serve, or `accept` that what it lacks is lost.",
        )
    )
    record_calls_per_second: float = field(
        metadata=_about(
            number(0.1, 100_000),
            20.0,
            "Calls that start, stop or modify tasks, per application and second.",
        )
    )
    record_calls_burst: int = field(
        metadata=_about(count(1, 100_000), 40, "How many of these calls may come at once after a pause.")
    )
    watch_streams_per_application: int = field(
        metadata=_about(count(1, 1_000_000), 10_000, "Open watch streams that an application may have.")
    )
    watch_stall_seconds: float = field(
        metadata=_about(
            number(1, 3600), 60.0, "How long a watcher may read nothing while there is something to read."
        )
    )
    event_retention_hours: float = field(
        metadata=_about(number(0.01, 87_600), 168.0, "Events older than this may be compacted.")
    )
    event_retention_count: int = field(
        metadata=_about(
            count(1_000, 1_000_000_000),
            1_000_000,
            "Events kept per application at most; the oldest go first.",
        )
    )
    event_retention_bytes: int = field(
        metadata=_about(
            count(1 << 20, 1 << 50),
            1 << 30,
            "Bytes of events kept per application at most; the oldest go first.",
        )
    )
    webhooks_per_application: int = field(
        metadata=_about(count(1, 10_000), 32, "Webhooks that an application may have.")
    )
    webhook_http: str = field(
        metadata=_about(
            choice("refuse", "allow"),
            "refuse",
            "Whether webhooks may have URLs without TLS, where everyone on the way reads what is recorded.",
        )
    )
    webhook_allowed_networks: tuple[Network, ...] = field(
        metadata=_about(
            networks,
            (),
            "Networks that webhooks may lead to although they are private: all that this machine reaches in them is "
            "open to everyone who may create webhooks.",
            "none",
        )
    )
    webhook_timeout_seconds: float = field(
        metadata=_about(
            number(1, 60),
            10.0,
            "How long a receiver may take to answer; the vendors' schedules have their own.",
        )
    )
    webhook_parallel_requests: int = field(
        metadata=_about(
            count(1, 10_000), 512, "Requests that are under way at once, to all receivers together."
        )
    )
    webhook_delivered_hours: float = field(
        metadata=_about(number(0, 8_760), 24.0, "How long deliveries are listed after they were made.")
    )
    webhook_delivered_count: int = field(
        metadata=_about(
            count(0, 10_000_000),
            10_000,
            "How many of these are kept per webhook at most; the oldest go first.",
        )
    )
    drain_seconds: float = field(
        metadata=_about(
            number(0, 600), 10.0, "How long a stopping server waits for running calls before it cancels them."
        )
    )
    log_level: str = field(
        metadata=_about(
            choice("debug", "info", "warning", "error"), "info", "Lines below this level are left out."
        )
    )
    log_format: str = field(
        metadata=_about(choice("console", "json"), "console", "`console` for people, `json` for programs.")
    )
    failpoints_file: Path | None = field(
        metadata=_about(
            path,
            None,
            "For tests of the service alone, where no other machine can call: JSON that names places at which its "
            "processes crash, fail or wait.",
            "none, and nothing of it happens",
        )
    )

    @property
    def run_dir(self) -> Path:
        """Sockets and locks of the running processes."""
        return self.data_dir / "run"

    @property
    def node_socket(self) -> Path:
        """Where workers find their node."""
        return self.run_dir / "node.sock"

    @property
    def spool_dir(self) -> Path:
        """Segments that are not in their store yet."""
        return self.data_dir / "spool"


def _about_of(described: "Field[object]") -> About:
    about = described.metadata["about"]
    assert isinstance(about, About)
    return about


FIELDS: Mapping[str, About] = {described.name: _about_of(described) for described in fields(Settings)}


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return VARIABLE_PREFIX + name.upper()


def load(flags: Mapping[str, object], environment: Mapping[str, str], config: Path | None = None) -> Settings:
    """The settings out of flags (by setting name), environment and file.

    `config` or else ROOMTAPE_CONFIG names the file; without either there is none.
    Raises SettingsError with every problem of every source.
    """
    problems: list[str] = []
    config_text = str(config) if config else environment.get(CONFIG_VARIABLE, "")
    raw: dict[str, tuple[object, str]] = {}
    for name, value in _file_values(Path(config_text), problems).items() if config_text else ():
        raw[name] = (value, f"in {config_text}")
    for name, value in _environment_values(environment, problems).items():
        raw[name] = (value, f"in {variable(name)}")
    for name, value in flags.items():
        raw[name] = (value, f"by --{name.replace('_', '-')}")
    return _settings(raw, problems)


def parse(values: Mapping[str, object]) -> Settings:
    """The settings out of raw values, as of a file or of `dump`. Raises SettingsError."""
    return _settings({name: (value, "as given") for name, value in values.items()}, [])


def dump(settings: Settings) -> dict[str, object]:
    """Raw values of which `parse` makes the same settings; fit for JSON. May hold a database password."""
    return {
        name: _raw(value) for name in FIELDS if (value := getattr(settings, name)) is not None and value != ""
    }


def with_addresses(settings: Settings, listen: Address, http_listen: Address) -> Settings:
    """The settings with the addresses that were bound, where the system chose the ports.

    What was derived from the addresses is derived again.
    """
    values = dump(settings)
    if settings.public_url == _own_url(values):
        del values["public_url"]
    if settings.advertise == str(settings.listen):
        del values["advertise"]
    return parse({**values, "listen": str(listen), "http_listen": str(http_listen)})


def _settings(raw: Mapping[str, tuple[object, str]], problems: list[str]) -> Settings:
    problems += [
        f"{name} ({origin}): there is no such setting; the settings are {', '.join(FIELDS)}"
        for name, (_, origin) in raw.items()
        if name not in FIELDS
    ]
    values: dict[str, Any] = {}
    for name, about in FIELDS.items():
        value, origin = raw[name] if name in raw else (_default(about, values), "by default")
        try:
            values[name] = None if value is None else about.read(value)
        except ValueError as error:
            problems.append(f"{name} ({origin}): {error}")
            values[name] = _default(about, values)
    if not problems:
        problems += _conflicts(Settings(**values))
    if problems:
        raise SettingsError(problems)
    return Settings(**values)


def _default(about: About, values: Mapping[str, object]) -> object:
    return about.default(values) if callable(about.default) else about.default


def _conflicts(settings: Settings) -> list[str]:
    problems = []
    tls = [settings.tls_certificate_file, settings.tls_key_file]
    if any(tls) and not all(tls):
        problems.append("tls_certificate_file, tls_key_file: set both or none")
    problems += [
        f"{file}: there is no such file to read for TLS"
        for file in tls
        if file and not os.access(file, os.R_OK)
    ]
    if not settings.listen.loopback and not (all(tls) and settings.api_keys):
        problems.append(
            f"listen: {settings.listen} can be reached from other machines; "
            "set tls_certificate_file, tls_key_file and api_keys, or listen on 127.0.0.1"
        )
    if not settings.http_listen.loopback and not all(tls):
        problems.append(
            f"http_listen: {settings.http_listen} can be reached from other machines; "
            "set tls_certificate_file and tls_key_file, or listen on 127.0.0.1"
        )
    elif settings.http_listen.wildcard and settings.public_url == _own_url(dump(settings)):
        host = settings.advertise.rpartition(":")[0].strip("[]")
        if Address(host, 0).wildcard:
            problems.append(
                f"public_url: {settings.public_url} reaches nobody, since http_listen is {settings.http_listen}; "
                "set public_url, or advertise, to what callers use"
            )
    if settings.failpoints_file and not (settings.listen.loopback and settings.http_listen.loopback):
        problems.append("failpoints_file: it is for tests; unset it, or listen on 127.0.0.1")
    if settings.spool_warn_percent >= settings.spool_refuse_percent:
        problems.append(
            f"spool_warn_percent, spool_refuse_percent: {settings.spool_warn_percent:g} is not below "
            f"{settings.spool_refuse_percent:g}; warn before new tasks are refused"
        )
    if len(str(settings.node_socket).encode()) > _MAX_SOCKET_BYTES:
        problems.append(
            f"data_dir: {settings.data_dir} is too long for the sockets in it; choose one of at most "
            f"{_MAX_SOCKET_BYTES - len('/run/node.sock')} bytes"
        )
    if settings.listen == settings.http_listen and settings.listen.port:
        problems.append(f"listen, http_listen: both are {settings.listen}; give them two ports")
    return problems


def _file_values(config: Path, problems: list[str]) -> dict[str, object]:
    try:
        return tomllib.loads(config.read_text("utf-8"))
    except OSError as error:
        problems.append(f"{config}: the settings file can't be read: {error.strerror}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{config}: the settings file is no TOML: {error}")
    return {}


def _environment_values(environment: Mapping[str, str], problems: list[str]) -> dict[str, object]:
    values: dict[str, object] = {}
    known = {variable(name): name for name in FIELDS}
    for key, value in sorted(environment.items()):
        if key in known:
            values[known[key]] = value
        elif key.startswith(VARIABLE_PREFIX) and key != CONFIG_VARIABLE and key not in CLIENT_VARIABLES:
            problems.append(f"{key} (in the environment): there is no such setting; unset it")
    return values


def _raw(value: object) -> object:
    if isinstance(value, tuple):
        return [item.raw() for item in value]
    return value if isinstance(value, int | float) else str(value)
