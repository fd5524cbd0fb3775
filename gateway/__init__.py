"""The HTTP process: Starlette behind granian. Everything a caller or an operator can reach."""
