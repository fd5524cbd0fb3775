"""The settings in force in this process: what it was started with, under what is stored.

    settings.current.chat_retry_count      read anew each time: it may change between two turns

A stored setting comes from an operator, wins over environment and default, and outlives restarts.
Every process looks once a second whether something was changed, and then replaces `current` whole:
who holds on to one `Settings` for the length of a turn never sees half a change.

Knows: reading, changing, who changed what. Does not know: what a setting is good for.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from shared.errors import Conflict
from shared.log import follow
from shared.sealing import SealBroken, Sealer
from shared.settings import (
    Settings,
    SettingsError,
    changed,
    is_default,
    is_secret,
    require_changeable,
    value_of,
)
from shared.store import keys
from shared.store.connection import Connection

log = logging.getLogger(__name__)

WATCH_SECONDS: Final = 1.0
AUDIT_KEPT: Final = 1_000

Listener = Callable[[Settings, Settings], None]


class Author(msgspec.Struct, frozen=True):
    """Who changes a setting: the key's name, from where, with which request."""

    key: str
    address: str = ""
    request_id: str = ""


class Change(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """One entry of the audit; `from` and `to` are what was in force before and after it.

    `at`: epoch seconds. A secret is masked.
    """

    at: int = 0
    by: Author
    name: str
    from_: object
    to: object


class SettingsInForce:
    """The settings as one process sees them."""

    def __init__(self, connection: Connection, sealer: Sealer, configured: Settings) -> None:
        """`configured`: what the process was started with."""
        self.configured = configured
        self._connection = connection
        self._sealer = sealer
        self._current = configured
        self._stored: dict[str, object] = {}
        self._version = ""
        self._listeners: list[Listener] = []
        self._looking = asyncio.Lock()

    @property
    def current(self) -> Settings:
        return self._current

    @property
    def stored(self) -> Mapping[str, object]:
        """The stored settings that are in force, by name, as JSON has them; secrets in clear."""
        return self._stored

    @property
    def overridden(self) -> list[str]:
        """Names of the variables that were given and that a stored setting overrides."""
        return [name for name in self._stored if not is_default(self.configured, name)]

    def on_change(self, listener: Listener) -> None:
        """`listener(before, now)` is called after each change that isn't the first reading."""
        self._listeners.append(listener)

    async def load(self) -> None:
        """What is stored is in force; before anything is done by other settings.

        Raises:
            StoreUnavailable: Redis did not answer; `look` makes up for it.
        """
        await self._look(tell=False)

    async def look(self) -> None:
        """Learns of changes. The open store does it each second.

        Script: settings_look.lua
        """
        await self._look(tell=True)

    async def change(self, changes: Mapping[str, object], *, by: Author) -> None:
        """These settings are stored (None: not any more), all or none: in force here at once, in
        every process within 2 s.

        Raises:
            SettingsError: there is no such setting, it is fixed, or its value is wrong.
            Conflict: somebody else changes them all the time.
            StoreUnavailable: Redis did not answer.

        Script: settings_put.lua
        """
        for _ in range(5):
            await self.look()
            words = [word for name in changes for word in self._words(name, changes[name], by)]
            if not words:
                return
            put = self._connection.run(
                "settings_put", keys.SETTINGS, self._version, AUDIT_KEPT, *words
            )
            if await put:
                log.info("settings changed", extra={"by": by.key, "settings": ", ".join(changes)})
                await self.look()
                return
        raise Conflict("The settings are being changed by somebody else.")

    async def audit(self, limit: int) -> list[Change]:
        """The newest changes, newest first."""
        found = await self._connection.ask(
            "settings_audit", "LRANGE", keys.settings_audit(), 0, limit - 1
        )
        return [_change(line) for line in found]

    def tell_overridden(self) -> None:
        """One log line for each variable that a stored setting overrides."""
        for name in self.overridden:
            log.warning(
                "a stored setting overrides the environment",
                extra={
                    "variable": name.upper(),
                    "stored": value_of(self._current, name),
                    "environment": value_of(self.configured, name),
                },
            )

    async def _look(self, *, tell: bool) -> None:
        async with self._looking:  # an older answer must not overtake a newer one
            version, *words = await self._connection.run(
                "settings_look", keys.SETTINGS, self._version
            )
            if version == self._version:
                return
            self._version = version
            before = self._current
            self._take(dict(zip(words[::2], words[1::2], strict=True)))
        if tell and before != self._current:
            for listener in self._listeners:
                listener(before, self._current)

    def _take(self, texts: Mapping[str, str]) -> None:
        """What can't be used (another version of the gateway stored it) is left out, and told."""
        current, stored = self.configured, {}
        for name, text in sorted(texts.items()):
            try:
                value = self._read(name, text)
                current = changed(current, name, value)
            except (SettingsError, SealBroken, msgspec.DecodeError) as error:
                log.warning("stored setting not used", extra={"setting": name, "error": str(error)})
            else:
                stored[name] = value
        self._current, self._stored = current, stored
        follow(current)

    def _words(self, name: str, value: object, by: Author) -> tuple[str, ...]:
        """The script's arguments for one change; none where nothing changes.

        Raises:
            SettingsError: see `change`.
        """
        require_changeable(name)
        if value == self._stored.get(name) and (value is None) == (name not in self._stored):
            return ()
        after = self.configured if value is None else changed(self.configured, name, value)
        entry = Change(
            by=by, name=name, from_=value_of(self._current, name), to=value_of(after, name)
        )
        text = "" if value is None else self._written(name, value)
        return name, text, msgspec.json.encode(entry).decode()

    def _written(self, name: str, value: object) -> str:
        text = msgspec.json.encode(value).decode()
        return self._sealer.seal(text, place=_place(name)) if is_secret(name) else text

    def _read(self, name: str, text: str) -> object:
        """
        Raises:
            UnknownSetting: not one that can be stored.
            SealBroken: sealed with another `SECRET_KEY`.
            msgspec.DecodeError: no JSON.
        """
        require_changeable(name)
        if is_secret(name):
            text = self._sealer.unseal(text, place=_place(name))
        value: object = msgspec.json.decode(text)
        return value


def _place(name: str) -> str:
    return f"{keys.settings()}#{name}"


def _change(line: str) -> Change:
    at, _, text = line.partition(" ")
    return msgspec.structs.replace(msgspec.json.decode(text, type=Change), at=int(at))
