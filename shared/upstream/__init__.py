"""The far side: its wire format, its stream, and the client that speaks to it."""
