"""Secrets at rest: sealing, fingerprints of API keys, and what derives from one `SECRET_KEY`.

Knows: the cipher, the text form of a sealed value, how keys derive from the root. Does not know:
Redis, accounts, who holds which key.

A sealed value is text, `v1:<key id>:<nonce>:<ciphertext>` (base64url without padding), AES-256-GCM.
What is large is sealed as bytes, `v1:<key id>:` and then nonce and ciphertext as they are.
Its place (record key and field) is authenticated with it: copied to another record or field it does
not unseal. `SECRET_KEY_PREVIOUS` still unseals, nothing is sealed with it any more.

A fingerprint is an HMAC; ids are made of some. Whoever has only the fingerprint of something can't
make another one, so the key they are made with outlives a change of `SECRET_KEY`: it is derived
from the first one there was, kept sealed, adopted at each start (`shared/store/fingerprints.py`).
"""

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Iterable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_VERSION = "v1"
_NONCE_BYTES = 12
SEALED_PREFIX = f"{_VERSION}:"
_TEXT_FORM = re.compile(rb"v1:[0-9a-f]{8}:[A-Za-z0-9_-]{16}:[A-Za-z0-9_-]+")


class SealBroken(ValueError):
    """A sealed value can't be read: other `SECRET_KEY`, other place, or damaged. Never holds it."""


class Sealer:
    """Seals and unseals with the keys derived from `SECRET_KEY` (and the one before it)."""

    def __init__(self, secret_key: str, previous: str = "") -> None:
        roots = [secret_key, *([previous] if previous else [])]
        self._current = _SealingKey(secret_key)
        self._sealing_keys = {key.id: key for key in map(_SealingKey, roots)}
        # The previous one's first: ids that were made with it are what there is.
        self._own_mac_keys = [_derive(root, "fingerprints") for root in reversed(roots)]
        self._mac_keys = list(self._own_mac_keys)

    @property
    def fingerprint_keys(self) -> list[bytes]:
        """What fingerprints are recognised by; the first one makes them."""
        return list(self._mac_keys)

    def adopt(self, fingerprint_keys: Iterable[bytes]) -> None:
        """The first of these makes fingerprints from now on, the others are recognised."""
        self._mac_keys = list(dict.fromkeys([*fingerprint_keys, *self._own_mac_keys]))

    def seal(self, plain: str, *, place: str) -> str:
        """`plain` in the form that may be stored at `place` (`<record key>#<field>`).

        The empty text stays empty: an absent secret isn't one.
        """
        if not plain:
            return ""
        nonce = os.urandom(_NONCE_BYTES)
        key = self._current
        body = key.cipher.encrypt(nonce, plain.encode(), place.encode())
        return f"{_VERSION}:{key.id}:{_encode(nonce)}:{_encode(body)}"

    def unseal(self, sealed: str, *, place: str) -> str:
        """
        Raises:
            SealBroken: sealed with an unknown key, for another place, or damaged.
        """
        if not sealed:
            return ""
        parts = sealed.split(":")
        if len(parts) != 4 or parts[0] != _VERSION:
            raise SealBroken("not a sealed value of a version this gateway knows")
        key = self._sealing_keys.get(parts[1])
        if key is None:
            raise SealBroken("sealed with another SECRET_KEY")
        try:
            plain = key.cipher.decrypt(_decode(parts[2]), _decode(parts[3]), place.encode())
        except (InvalidTag, ValueError) as error:
            raise SealBroken("damaged, or moved from another record") from error
        return plain.decode()

    def seal_bytes(self, plain: bytes, *, place: str) -> bytes:
        """`plain` in the form that may be stored at `place`."""
        nonce = os.urandom(_NONCE_BYTES)
        key = self._current
        head = f"{_VERSION}:{key.id}:".encode()
        return head + nonce + key.cipher.encrypt(nonce, plain, place.encode())

    def unseal_bytes(self, sealed: bytes, *, place: str) -> bytes:
        """
        Raises:
            SealBroken: see `unseal`.
        """
        version, _, rest = sealed.partition(b":")
        key_id, _, body = rest.partition(b":")
        if version != _VERSION.encode():
            raise SealBroken("not a sealed value of a version this gateway knows")
        key = self._sealing_keys.get(key_id.decode("ascii", "replace"))
        if key is None:
            raise SealBroken("sealed with another SECRET_KEY")
        nonce, ciphertext = body[:_NONCE_BYTES], body[_NONCE_BYTES:]
        try:
            return key.cipher.decrypt(nonce, ciphertext, place.encode())
        except (InvalidTag, ValueError) as error:
            raise SealBroken("damaged, or moved from another record") from error

    def is_current(self, sealed: str) -> bool:
        """Whether `sealed` needs no new sealing after a rotation."""
        return not sealed or sealed.startswith(self.current_prefix)

    @property
    def current_prefix(self) -> str:
        """What everything begins with that is sealed with the current key."""
        return f"{_VERSION}:{self._current.id}:"

    def seal_anew(self, sealed: bytes, *, place: str) -> bytes:
        """The same secret in the same form (text or bytes), sealed with the current key.

        Raises:
            SealBroken: see `unseal`.
        """
        if _TEXT_FORM.fullmatch(sealed):
            return self.seal(self.unseal(sealed.decode(), place=place), place=place).encode()
        return self.seal_bytes(self.unseal_bytes(sealed, place=place), place=place)

    def fingerprint(self, text: str, *, purpose: str) -> str:
        """HMAC-SHA-256 in hex: tells whether two texts are equal and nothing else."""
        return _mac(self._mac_keys[0], text, purpose)

    def fingerprints(self, text: str, *, purpose: str) -> list[str]:
        """The fingerprint, and the others it may have been given once: by other keys."""
        return [_mac(key, text, purpose) for key in self._mac_keys]


class _SealingKey:
    def __init__(self, root: str) -> None:
        key = _derive(root, "sealing")
        self.id = hashlib.sha256(key).hexdigest()[:8]
        self.cipher = AESGCM(key)


def _derive(root: str, purpose: str) -> bytes:
    info = f"qwen-gateway {purpose} v1".encode()
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(root.encode())


def _mac(key: bytes, text: str, purpose: str) -> str:
    return hmac.new(key, f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
