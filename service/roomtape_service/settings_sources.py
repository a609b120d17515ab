"""How the sources of storage credentials are read that an operator defines.

A source is a table with its `type`, what that type needs, and the `applications` that may use it:

    [credential_sources.vault]
    type = "file"
    path = "/run/secrets/storage.json"
    applications = ["my-app"]
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from roomtape_service.settings_values import application_ids, count, path, text, url

__all__ = [
    "CredentialSource",
    "EnvironmentSource",
    "FileSource",
    "WebIdentitySource",
    "credential_sources",
]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_OWN_VARIABLES = "ROOMTAPE_"
_SESSION_NAME = re.compile(r"[A-Za-z0-9_=,.@-]{2,64}")
_ROLE_ARN = re.compile(r"arn:[\x21-\x7e]{4,2000}")
_REGION = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")

_DEFAULT_SESSION_NAME = "roomtape"
_DEFAULT_STS_REGION = "us-east-1"
# What STS takes, and its default.
_LEAST_DURATION_SECONDS = 900
_MOST_DURATION_SECONDS = 43_200
_DEFAULT_DURATION_SECONDS = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """A file that something else keeps current: JSON, or ini as AWS tools write it."""

    name: str
    applications: tuple[str, ...]
    path: Path

    def raw(self) -> dict[str, object]:
        """What makes the same source again; fit for JSON."""
        return _raw(self, "file", path=str(self.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSource:
    """Variables of the server's own environment; the fields are their names."""

    name: str
    applications: tuple[str, ...]
    access_key_id: str
    secret_access_key: str
    session_token: str

    def raw(self) -> dict[str, object]:
        """What makes the same source again; fit for JSON."""
        names = {"access_key_id": self.access_key_id, "secret_access_key": self.secret_access_key}
        if self.session_token:
            names["session_token"] = self.session_token
        return _raw(self, "environment", **names)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebIdentitySource:
    """A token that a platform (such as Kubernetes) keeps current, for AssumeRoleWithWebIdentity."""

    name: str
    applications: tuple[str, ...]
    role_arn: str
    token_file: Path
    sts_endpoint: str
    """Base URL; empty for AWS's own of the region."""
    sts_region: str
    session_name: str
    duration_seconds: int

    def raw(self) -> dict[str, object]:
        """What makes the same source again; fit for JSON."""
        endpoint = {"sts_endpoint": self.sts_endpoint} if self.sts_endpoint else {}
        return _raw(
            self,
            "web_identity",
            role_arn=self.role_arn,
            token_file=str(self.token_file),
            sts_region=self.sts_region,
            session_name=self.session_name,
            duration_seconds=self.duration_seconds,
            **endpoint,
        )


CredentialSource: TypeAlias = FileSource | EnvironmentSource | WebIdentitySource


def credential_sources(value: object) -> tuple[CredentialSource, ...]:
    """Sources out of a file's table of tables by name, of a list of tables with `name`, or of either as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else []
        except ValueError as error:
            raise ValueError(f"that is no JSON object of sources by name: {error}") from None
    if isinstance(value, Mapping):
        tables = [
            ({**table, "name": name} if isinstance(table, Mapping) else table)
            for name, table in value.items()
        ]
    elif isinstance(value, list | tuple):
        tables = list(value)
    else:
        raise ValueError("sources are tables by name: [credential_sources.NAME]")
    sources = tuple(
        table if isinstance(table, FileSource | EnvironmentSource | WebIdentitySource) else _source(table)
        for table in tables
    )
    names = [source.name for source in sources]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{twice[0]!r} stands twice; give each source its own name")
    return tuple(sorted(sources, key=lambda source: source.name))


_KEYS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "file": (frozenset({"path"}), frozenset()),
    "environment": (frozenset({"access_key_id", "secret_access_key"}), frozenset({"session_token"})),
    "web_identity": (
        frozenset({"role_arn", "token_file"}),
        frozenset({"sts_endpoint", "sts_region", "session_name", "duration_seconds"}),
    ),
}
_COMMON_KEYS = frozenset({"name", "type", "applications"})


def _source(table: object) -> CredentialSource:
    if not isinstance(table, Mapping):
        raise ValueError("each source is a table with `type`, `applications` and what its type needs")
    name = table.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a source; write 1 to 64 letters, digits, `-` and `_`")
    try:
        return _read(name, table)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _read(name: str, table: Mapping[str, object]) -> CredentialSource:
    kind = table.get("type")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise ValueError(f"type {kind!r} is not known; write {', '.join(_KEYS)}")
    required, optional = _KEYS[kind]
    if missing := sorted(required - set(table)):
        raise ValueError(f"a source of the type {kind} needs `{missing[0]}`")
    if unknown := sorted(set(table) - required - optional - _COMMON_KEYS):
        known = ", ".join(sorted(required | optional))
        raise ValueError(f"a source of the type {kind} has no `{unknown[0]}`; it has {known}")
    applications = application_ids(table.get("applications"))
    match kind:
        case "file":
            return FileSource(name=name, applications=applications, path=path(table["path"]))
        case "environment":
            return EnvironmentSource(
                name=name,
                applications=applications,
                access_key_id=_variable(table["access_key_id"]),
                secret_access_key=_variable(table["secret_access_key"]),
                session_token=_variable(table["session_token"]) if "session_token" in table else "",
            )
        case _:
            return WebIdentitySource(
                name=name,
                applications=applications,
                role_arn=_matching(_ROLE_ARN, table["role_arn"], "no role; write its ARN, `arn:…`"),
                token_file=path(table["token_file"]),
                sts_endpoint=url(table["sts_endpoint"]) if "sts_endpoint" in table else "",
                sts_region=_matching(_REGION, table.get("sts_region", _DEFAULT_STS_REGION), "no region"),
                session_name=_matching(
                    _SESSION_NAME,
                    table.get("session_name", _DEFAULT_SESSION_NAME),
                    "no session name; write 2 to 64 letters, digits and `_ = , . @ -`",
                ),
                duration_seconds=count(_LEAST_DURATION_SECONDS, _MOST_DURATION_SECONDS)(
                    table.get("duration_seconds", _DEFAULT_DURATION_SECONDS)
                ),
            )


def _variable(value: object) -> str:
    # Never repeated: who puts the secret itself here by mistake must not find it in a log.
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value) or value.startswith(_OWN_VARIABLES):
        raise ValueError(
            f"that is no name of an environment variable; write letters, digits and `_`, and not {_OWN_VARIABLES}…"
        )
    return value


def _matching(pattern: re.Pattern[str], value: object, problem: str) -> str:
    if not pattern.fullmatch(text(value)):
        raise ValueError(f"{value!r} is {problem}")
    return text(value)


def _raw(source: CredentialSource, kind: str, **values: object) -> dict[str, object]:
    return {"name": source.name, "type": kind, "applications": list(source.applications), **values}
