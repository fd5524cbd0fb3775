"""What one simulator holds: its configuration and everything in memory; `clear` makes it new."""

from typing import Any

import msgspec

from tests.simulator.accounts import Account, Accounts
from tests.simulator.chats import Chats
from tests.simulator.config import Config
from tests.simulator.connection import Exchange
from tests.simulator.device import Devices
from tests.simulator.media import MediaStore
from tests.simulator.script import Playbook
from tests.simulator.stats import Stats
from tests.simulator.storage import Storage


class State:
    """The simulator's memory. `base` is what stands before our paths: scheme, host, prefix."""

    def __init__(self, config: Config, accounts: list[tuple[str, str]]) -> None:
        self._first_config = config
        self._first_accounts = accounts
        self.clear()

    def clear(self) -> None:
        """Forget everything; the accounts of the start come back with their first passwords."""
        self.config = msgspec.convert(msgspec.to_builtins(self._first_config), Config)
        self.accounts = Accounts()
        for email, password in self._first_accounts:
            self.accounts.add(email, password)
        self.chats = Chats()
        self.storage = Storage()
        self.media = MediaStore()
        self.devices = Devices()
        self.playbook = Playbook()
        self.stats = Stats()
        self.login_times: dict[str, list[float]] = {}

    def account_of(self, exchange: Exchange) -> Account:
        """The account the router found for this exchange."""
        account = self.accounts.get(exchange.email)
        assert account is not None, "the route needs a token, so there is an account"
        return account

    def configure(self, fields: dict[str, Any]) -> Config:
        """Change the named fields; an unknown one is refused."""
        merged = msgspec.to_builtins(self.config) | fields
        self.config = msgspec.convert(merged, Config, strict=False)
        return self.config


def base_of(exchange: Exchange) -> str:
    """The address under which the peer reaches us, for the addresses that answers carry."""
    return f"http://{exchange.request.headers.get('host', '127.0.0.1')}{exchange.prefix}"
