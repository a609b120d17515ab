"""Where settings come from, and everything that is refused about them."""

import json
import re
from pathlib import Path

import pytest

from roomtape_service import settings as module
from roomtape_service.settings import (
    FIELDS,
    Address,
    SettingsError,
    dump,
    load,
    parse,
    variable,
    with_addresses,
)
from roomtape_service.settings_sample import sample

ROOT = Path(__file__).parents[2]
HASH = "a" * 64
FILE = {"type": "file", "path": "/run/vault.json", "applications": ["my-app"]}
VARIABLES = {
    "type": "environment",
    "access_key_id": "STORE_KEY",
    "secret_access_key": "STORE_SECRET",
    "applications": ["*"],
}
ROLE = {
    "type": "web_identity",
    "role_arn": "arn:aws:iam::123456789012:role/recorder",
    "token_file": "/run/token",
    "applications": ["a", "b"],
}


def test_defaults_are_usable_and_stay_on_this_machine() -> None:
    settings = load({}, {})
    assert str(settings.listen) == "127.0.0.1:7400"
    assert settings.listen.loopback
    assert settings.http_listen.loopback
    assert settings.data_dir == Path("roomtape-data").absolute()
    assert settings.database_url == f"sqlite:///{settings.data_dir}/roomtape.db"
    assert settings.storage_root == settings.data_dir / "files"
    assert settings.secret_key_file == settings.data_dir / "secret.key"
    assert settings.advertise == "127.0.0.1:7400"
    assert settings.public_url == "http://127.0.0.1:7401"
    assert settings.workers >= 1
    assert settings.api_keys == ()
    assert settings.create_default_application == ""


def test_a_flag_goes_before_the_environment_before_the_file(tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(
        'log_level = "error"\nlog_format = "json"\nworkers = 3\n'
        f'[[api_keys]]\nsha256 = "{HASH}"\napplications = ["one", "two"]\n'
    )
    settings = load(
        {"log_level": "debug"}, {"ROOMTAPE_LOG_LEVEL": "warning", "ROOMTAPE_WORKERS": "2"}, config
    )
    assert settings.log_level == "debug"
    assert settings.workers == 2
    assert settings.log_format == "json"
    assert settings.api_keys[0].applications == ("one", "two")
    assert load({}, {"ROOMTAPE_CONFIG": str(config)}) == load({}, {}, config)


def test_every_problem_is_listed_at_once(tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text('listen = "nowhere"\nfoo = 1\nworkers = true\n')
    with pytest.raises(SettingsError) as caught:
        load({"log_level": "loud"}, {"ROOMTAPE_DURABILITY": "some", "ROOMTAPE_BAR": "1", "HOME": "/"}, config)
    problems = caught.value.problems
    assert len(problems) == 6
    for part in (
        f"foo (in {config}): there is no such setting",
        "ROOMTAPE_BAR (in the environment): there is no such setting",
        f"listen (in {config}): 'nowhere' is no address; write host:port",
        f"workers (in {config}): True is out of range",
        "durability (in ROOMTAPE_DURABILITY): 'some' is not known; write kernel or power",
        "log_level (by --log-level): 'loud' is not known",
    ):
        assert any(problem.startswith(part) for problem in problems), part


def test_variables_of_the_commands_that_call_a_server_are_let_be() -> None:
    load({}, {"ROOMTAPE_SERVER": "127.0.0.1:7400", "ROOMTAPE_API_KEY": "k", "ROOMTAPE_APP": "demo"})


@pytest.mark.parametrize(
    ("content", "part"), [("listen = ", "is no TOML"), (None, "can't be read"), (b"\xff", "is no TOML")]
)
def test_a_file_that_is_none(tmp_path: Path, content: str | bytes | None, part: str) -> None:
    config = tmp_path / "settings.toml"
    if content is not None:
        config.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(SettingsError, match=part):
        load({}, {}, config)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listen", "127.0.0.1"),
        ("listen", "127.0.0.1:70000"),
        ("listen", "::1:7400"),
        ("listen", ":7400"),
        ("listen", 7400),
        ("public_url", "ftp://x"),
        ("public_url", "//x"),
        ("workers", 0),
        ("workers", "x"),
        ("workers", 1.5),
        ("workers", "٣"),
        ("drain_seconds", "nan"),
        ("drain_seconds", -1),
        ("drain_seconds", True),
        ("event_retention_hours", float("inf")),
        ("create_default_application", "a/b"),
        ("database_url", "mysql://x"),
        ("data_dir", ""),
        ("data_dir", 5),
        ("api_keys", 5),
        ("api_keys", ["x"]),
        ("api_keys", [{"sha256": HASH}]),
        ("api_keys", [{"sha256": HASH, "applications": []}]),
        ("api_keys", [{"sha256": HASH, "applications": ["a/b"]}]),
        ("api_keys", [{"sha256": HASH, "applications": ["a"], "more": 1}]),
        ("api_keys", f"{HASH}=a {HASH}=b"),
        ("api_keys", HASH),
        ("credential_sources", 5),
        ("credential_sources", "{"),
        ("credential_sources", {"a b": FILE}),
        ("credential_sources", {"a": 5}),
        ("credential_sources", {"a": {**FILE, "type": "vault"}}),
        ("credential_sources", {"a": {**FILE, "applications": []}}),
        ("credential_sources", {"a": {**FILE, "more": 1}}),
        ("credential_sources", {"a": {"type": "file", "applications": ["x"]}}),
        ("credential_sources", [{**FILE, "name": "a"}, {**FILE, "name": "a"}]),
        ("credential_sources", {"a": {**VARIABLES, "secret_access_key": "not a name"}}),
        ("credential_sources", {"a": {**VARIABLES, "access_key_id": "ROOMTAPE_KEY"}}),
        ("credential_sources", {"a": {**ROLE, "role_arn": "recorder"}}),
        ("credential_sources", {"a": {**ROLE, "duration_seconds": 60}}),
        ("credential_sources", {"a": {**ROLE, "sts_endpoint": "sts"}}),
        ("credential_sources", {"a": {**ROLE, "session_name": "a b"}}),
    ],
)
def test_values_out_of_range(name: str, value: object) -> None:
    with pytest.raises(SettingsError) as caught:
        parse({name: value})
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"{name} (as given): ")


def test_secrets_that_were_put_in_the_wrong_place_are_not_repeated() -> None:
    for values in (
        {"api_keys": "my-secret-key=*"},
        {"database_url": "mysql://user:my-secret-key@host"},
        {"credential_sources": {"a": {**VARIABLES, "secret_access_key": "my-secret-key"}}},
    ):
        with pytest.raises(SettingsError) as caught:
            parse(values)
        assert "my-secret-key" not in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.168.1.1", "recorder.example.com"])
def test_other_machines_reach_it_only_with_tls_and_keys(tmp_path: Path, host: str) -> None:
    certificate = tmp_path / "cert.pem"
    certificate.touch()
    tls = {"tls_certificate_file": str(certificate), "tls_key_file": str(certificate)}
    keys = {"api_keys": f"{HASH}=*"}
    for given in ({}, tls, keys):
        with pytest.raises(SettingsError, match=r"listen: .* can be reached from other machines"):
            parse({"listen": f"{host}:7400", **given})
    settings = parse({"listen": f"{host}:7400", **tls, **keys})
    assert settings.public_url.startswith("https://")
    with pytest.raises(SettingsError, match="http_listen"):
        parse({"http_listen": f"{host}:7401", **keys})
    parse({"http_listen": f"{host}:7401", **tls})


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
def test_nobody_is_sent_to_every_address(tmp_path: Path, host: str) -> None:
    certificate = tmp_path / "cert.pem"
    certificate.touch()
    everywhere = {
        "listen": f"{host}:7400",
        "http_listen": f"{host}:7401",
        "tls_certificate_file": str(certificate),
        "tls_key_file": str(certificate),
        "api_keys": f"{HASH}=*",
    }
    with pytest.raises(SettingsError, match=rf"public_url: .* reaches nobody.*{re.escape(host)}:7401"):
        parse(everywhere)
    named = parse({**everywhere, "advertise": "recorder.example.com:443"})
    assert named.public_url == "https://recorder.example.com:7401"
    bound = with_addresses(named, Address("0.0.0.0", 7400), Address("0.0.0.0", 9))
    assert bound.public_url == "https://recorder.example.com:9"
    assert parse({**everywhere, "public_url": "https://b"}).public_url == "https://b"


def test_an_advertised_address_is_one() -> None:
    with pytest.raises(SettingsError, match=r"advertise .*host:port"):
        parse({"advertise": "recorder.example.com"})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.4.5", "[::1]", "localhost"])
def test_this_machine_reaches_it_without(host: str) -> None:
    assert str(parse({"listen": f"{host}:1"}).listen) == f"{host}:1"


def test_what_contradicts_itself(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="set both or none"):
        parse({"tls_key_file": str(ROOT / "pyproject.toml")})
    with pytest.raises(SettingsError, match="no such file"):
        parse({"tls_key_file": str(tmp_path / "none"), "tls_certificate_file": str(tmp_path / "none")})
    with pytest.raises(SettingsError, match="two ports"):
        parse({"http_listen": "127.0.0.1:7400"})
    with pytest.raises(SettingsError, match="too long"):
        parse({"data_dir": f"/{'x' * 100}"})
    parse({"http_listen": "127.0.0.1:0", "listen": "127.0.0.1:0"})


def test_ports_that_the_system_chose_reach_what_is_derived_from_them() -> None:
    open_ports = {"http_listen": "127.0.0.1:0", "listen": "127.0.0.1:0"}
    bound = with_addresses(parse(open_ports), Address("127.0.0.1", 5), Address("127.0.0.1", 6))
    assert (str(bound.listen), str(bound.http_listen)) == ("127.0.0.1:5", "127.0.0.1:6")
    assert (bound.advertise, bound.public_url) == ("127.0.0.1:5", "http://127.0.0.1:6")
    told = parse({**open_ports, "advertise": "a:1", "public_url": "https://b"})
    bound = with_addresses(told, Address("127.0.0.1", 5), Address("127.0.0.1", 6))
    assert (bound.advertise, bound.public_url) == ("a:1", "https://b")


def test_settings_survive_being_handed_over(tmp_path: Path) -> None:
    sources = {
        "vault": FILE,
        "shell": {**VARIABLES, "session_token": "STORE_TOKEN"},
        "pod": {**ROLE, "sts_endpoint": "https://sts.example.com/", "duration_seconds": 900},
    }
    settings = parse(
        {
            "data_dir": str(tmp_path),
            "api_keys": f"{HASH}=a,b",
            "listen": "[::1]:0",
            "drain_seconds": 2,
            "credential_sources": sources,
        }
    )
    assert parse(json.loads(json.dumps(dump(settings)))) == settings
    assert [source.name for source in settings.credential_sources] == ["pod", "shell", "vault"]
    assert (
        parse({"credential_sources": json.dumps(sources)}).credential_sources == settings.credential_sources
    )
    assert settings.listen == Address("::1", 0)


def test_the_sample_file_is_that_of_the_code() -> None:
    assert (ROOT / "service" / "sample.toml").read_text("utf-8") == sample(), (
        "write it again: python -c 'from roomtape_service.settings_sample import sample; print(sample(), end=\"\")'"
    )


def test_the_sample_file_is_a_settings_file(tmp_path: Path) -> None:
    config = tmp_path / "sample.toml"
    config.write_text(sample())
    assert load({}, {}, config) == load({}, {})
    certificate = tmp_path / "pem"
    certificate.touch()
    active = "\n".join(
        line.removeprefix("#") if not line.startswith("# ") else line for line in sample().splitlines()
    )
    for name in ("/etc/roomtape/fullchain.pem", "/etc/roomtape/key.pem"):
        active = active.replace(name, str(certificate))
    config.write_text(active)
    settings = load({}, {}, config)
    assert settings.api_keys[0].applications == ("my-app",)
    assert settings.credential_sources[0].applications == ("my-app",)
    assert settings.create_default_application == "demo"


def test_every_setting_is_documented_and_has_a_variable_of_its_own() -> None:
    assert len({variable(name) for name in FIELDS}) == len(FIELDS)
    for name, about in FIELDS.items():
        assert about.help.endswith("."), name
    assert not {variable(name) for name in FIELDS} & {*module.CLIENT_VARIABLES, module.CONFIG_VARIABLE}
