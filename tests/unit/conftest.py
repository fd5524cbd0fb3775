"""Unit level: no sockets, no Redis, no sleep."""

from hypothesis import settings

# The machine's load is no property of the code.
settings.register_profile("house", deadline=None)
settings.load_profile("house")
