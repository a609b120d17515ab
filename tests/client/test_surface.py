"""What the client dist shows and ships."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import roomtape
import roomtape.client

DIST = Path(roomtape.__file__).parent.parent


def test_the_surface_is_complete_and_sorted() -> None:
    public = {
        name
        for name, value in vars(roomtape.client).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("roomtape.client")
    }
    aliases = {"OnAcknowledged", "OnEvent", "OnProgress", "OnRejected"}
    assert list(roomtape.client.__all__) == sorted(roomtape.client.__all__)
    assert set(roomtape.client.__all__) == public | aliases


def test_it_needs_what_it_declares_and_no_more() -> None:
    """Neither the service nor PyAV is loaded, and importing warns of nothing."""
    program = (
        "import sys, roomtape.client as client\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))"
    )
    output = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=True, capture_output=True, text=True
    )
    assert output.stderr == ""
    loaded = {name for name in output.stdout.split() if not name.startswith(("_", "__editable__"))}
    loaded_by_grpc = {"cython_runtime", "grpc_health", "grpc_reflection", "grpc_tools", "typing_extensions"}
    assert loaded - loaded_by_grpc == {"google", "grpc", "roomtape"}
    project = tomllib.loads((DIST / "pyproject.toml").read_text())["project"]
    declared = {requirement.partition(">")[0] for requirement in project["dependencies"]}
    assert declared == {"googleapis-common-protos", "grpcio", "protobuf"}
    assert set(project["optional-dependencies"]) == {"aiohttp", "media", "types"}


def test_the_wheel_holds_types_stubs_and_licence(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        check=True,
        capture_output=True,
        cwd=DIST,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    packaged = {
        str(path.relative_to(DIST)) for path in (DIST / "roomtape").rglob("*.py*") if path.suffix != ".pyc"
    }
    assert packaged | {"roomtape/py.typed"} <= names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert "Provides-Extra: media" in metadata
    assert "# roomtape" in metadata
