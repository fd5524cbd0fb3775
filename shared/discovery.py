"""What a launcher tells processes that are started beside it, for the same `DATA_DIR`.

A launcher writes the variables that its own children get (where its embedded Redis listens, the
keys it generated, the upstream it uses) into a file only its user can read; `python -m gateway` and
`python -m workers` started alone read it. In `file` mode it lies in `DATA_DIR`; in `none` mode,
which writes nothing there, in the run directory, under a name made of `DATA_DIR`. The two never
meet: a demo's accounts must not reach the real upstream.

Knows: the record and whether its server still listens. Does not know: who starts that server.
"""

import hashlib
import os
import socket
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

import msgspec

from shared import run_directory
from shared.settings import Settings, SettingsError, load

NOTHING_RUNS = (
    "REDIS_URL is not set and no launcher runs for DATA_DIR={data_dir} (DATA_SAVE_MODE={mode}): "
    "start `make run`, or set REDIS_URL, API_KEY and SECRET_KEY"
)


def load_settings(environ: Mapping[str, str]) -> Settings:
    """The settings of a process started alone: its environment, else what a launcher published.

    Raises:
        SettingsError: wrong or missing, or there is no Redis to join.
    """
    settings = load(environ)
    if settings.redis_url:
        return settings
    found = find(settings.data_dir, settings.data_save_mode)
    if found is None:
        raise SettingsError(
            NOTHING_RUNS.format(data_dir=settings.data_dir, mode=settings.data_save_mode)
        )
    return load({**found, **{name: value for name, value in environ.items() if value}})


def record_path(data_dir: str, mode: str) -> Path:
    """Where the launcher of this `DATA_DIR` and `DATA_SAVE_MODE` leaves its record."""
    directory = Path(data_dir).resolve()
    if mode != "none":
        return directory / "launcher.json"
    name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
    return run_directory.home_directory() / f"launcher-{name}.json"


def publish(path: Path, variables: Mapping[str, str], *, replace: bool = True) -> None:
    """Leave the record; readable by its owner only, replaced in one step.

    Args:
        replace: False leaves the record of another launcher as it is.
    """
    if not replace and path.exists():
        return
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode({"pid": os.getpid(), "variables": dict(variables)}))
    unfinished.replace(path)


def withdraw(path: Path) -> None:
    """Remove the record if it is still the one of this process."""
    record = _read(path)
    if record is not None and record.pid == os.getpid():
        path.unlink(missing_ok=True)


def find(data_dir: str, mode: str) -> dict[str, str] | None:
    """The variables of a launcher whose embedded Redis listens, or None."""
    record = _read(record_path(data_dir, mode))
    if record is None or not listens(record.variables.get("REDIS_URL", "")):
        return None
    return record.variables


def listens(url: str) -> bool:
    """Whether a server accepts connections on this `unix://` URL."""
    path = urllib.parse.unquote(urllib.parse.urlsplit(url).path)
    if not url.startswith("unix://") or not path:
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


class _Record(msgspec.Struct, frozen=True):
    pid: int
    variables: dict[str, str]


def _read(path: Path) -> _Record | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Record)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None
