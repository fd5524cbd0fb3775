"""The archive of a backup: one JSON document whose content only its password opens.

    {"format": "qwen-gateway backup", "version": 1, "created_at": 1795438104,
     "kdf": {"name": "scrypt", "salt": "…", "n": 32768, "r": 8, "p": 1},
     "nonce": "…", "data": "…"}

`data` is the content as JSON, compressed, encrypted with AES-256-GCM; everything before it is
authenticated with it. Bytes are base64. It depends on no `SECRET_KEY`: where it is read that may be
another one.

Knows: the form, the cipher. Does not know: where the content comes from.
"""

import base64
import os
import zlib
from typing import Annotated, Any, Final, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from msgspec import Meta

from shared.store.api_keys import ApiKey

FORMAT: Final = "qwen-gateway backup"

# 32 MB and about 0.1 s per guess; what is read may ask for 16 times as much, not for all there is.
_N: Final = 2**15
_MOST_N: Final = 2**19
_LARGEST_BYTES: Final = 512 * 1024**2

_Bytes = Annotated[str, Meta(max_length=64)]


class ArchiveBroken(ValueError):
    """The archive can't be read: another password, damaged, or none of ours."""


class AccountCopy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One account; secrets in clear. `token_at`: when its token was given, None = unknown."""

    email: str
    password: str
    proxy: str = ""
    cookies: str = ""
    enabled: bool = True
    concurrency: int | None = None
    token: str = ""
    token_expires_at: float = 0.0
    token_at: float | None = None

    def __repr__(self) -> str:
        return "AccountCopy()"


class Contents(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a backup holds. `fingerprint_keys`: what the ids of `keys` were made with."""

    accounts: list[AccountCopy] = []
    keys: list[ApiKey] = []
    settings: dict[str, Any] = {}  # Any: each as JSON has it
    fingerprint_keys: list[bytes] = []

    def __repr__(self) -> str:
        return f"Contents({len(self.accounts)} accounts, {len(self.keys)} keys)"


class Kdf(msgspec.Struct, frozen=True):
    """How the key was derived from the password."""

    salt: _Bytes
    name: Literal["scrypt"] = "scrypt"
    n: Annotated[int, Meta(ge=2**10, le=_MOST_N)] = _N
    r: Annotated[int, Meta(ge=1, le=16)] = 8
    p: Annotated[int, Meta(ge=1, le=4)] = 1


class Archive(msgspec.Struct, frozen=True, kw_only=True):
    """See the head of this file."""

    format: Literal["qwen-gateway backup"] = FORMAT
    version: Literal[1] = 1
    created_at: int
    kdf: Kdf
    nonce: _Bytes
    data: str


def pack(contents: Contents, password: str, *, created_at: int) -> Archive:
    """Takes about a tenth of a second: not in an event loop."""
    kdf = Kdf(salt=_text(os.urandom(16)))
    archive = Archive(created_at=created_at, kdf=kdf, nonce=_text(os.urandom(12)), data="")
    plain = zlib.compress(msgspec.json.encode(contents), 6)
    nonce = base64.b64decode(archive.nonce)
    sealed = _cipher(kdf, password).encrypt(nonce, plain, _head(archive))
    return msgspec.structs.replace(archive, data=_text(sealed))


def unpack(archive: Archive, password: str) -> Contents:
    """Takes as long as `pack`.

    Raises:
        ArchiveBroken: see there.
    """
    try:
        nonce, sealed = base64.b64decode(archive.nonce), base64.b64decode(archive.data)
        plain = _cipher(archive.kdf, password).decrypt(nonce, sealed, _head(archive))
    except (InvalidTag, ValueError) as error:
        raise ArchiveBroken("The password is another one, or the archive is damaged") from error
    try:
        inflater = zlib.decompressobj()
        document = inflater.decompress(plain, _LARGEST_BYTES)
        return msgspec.json.decode(document, type=Contents)
    except (zlib.error, msgspec.DecodeError) as error:
        raise ArchiveBroken("The archive holds something else than accounts and keys") from error


def _head(archive: Archive) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(archive, data=""), order="sorted")


def _cipher(kdf: Kdf, password: str) -> AESGCM:
    salt = base64.b64decode(kdf.salt)
    return AESGCM(Scrypt(salt=salt, length=32, n=kdf.n, r=kdf.r, p=kdf.p).derive(password.encode()))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
