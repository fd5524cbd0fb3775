"""The admin key and the sealing key that a first start makes, kept where only we can read them."""

import os
import secrets
from pathlib import Path

import msgspec


class Generated(msgspec.Struct, frozen=True):
    value: str
    is_new: bool


def make_api_key() -> str:
    """`sk-` and 43 characters of base64url (256 bits)."""
    return f"sk-{secrets.token_urlsafe(32)}"


def make_secret_key() -> str:
    return secrets.token_urlsafe(48)


def kept(path: Path, fresh: str) -> Generated:
    """What the file holds; `fresh` is written to it when there is none yet.

    Race: two launchers start for the first time. Each writes a file of its own and links it to the
    name, which only one link can take; the other reads what the first one wrote.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(fresh + "\n")
        file.flush()
        os.fsync(descriptor)
    try:
        os.link(unfinished, path)
    except FileExistsError:
        path.chmod(0o600)
        return Generated(path.read_text().strip(), is_new=False)
    finally:
        unfinished.unlink()
    return Generated(fresh, is_new=True)
