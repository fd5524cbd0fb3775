"""What both processes stand on: neutral chat, the turn, the upstream, Redis. No Starlette here."""
