"""A connection on which something else happens at a chosen moment: races as a timeline, not by luck.

connection.before["lease_extend"] = release_it      runs before the script is sent
connection.behind["api_key_find"] = change_it       runs when its reply is here and not yet read
"""

from collections.abc import Awaitable, Callable

from shared.store.connection import Connection, Reply

Meddle = Callable[[], Awaitable[object]]


class MeddledConnection(Connection):
    """What is in `before` and `behind` runs at every call of that script until it is taken out."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.before: dict[str, Meddle] = {}
        self.behind: dict[str, Meddle] = {}

    async def run(self, script: str, key: str, *arguments: str | int | float | bytes) -> Reply:
        if meddle := self.before.get(script):
            await meddle()
        reply = await super().run(script, key, *arguments)
        if meddle := self.behind.get(script):
            await meddle()
        return reply
