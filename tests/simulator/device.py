"""Device flow (stub, deepened next)."""


class Devices:
    pass
