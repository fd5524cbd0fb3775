"""`python -m gateway`: the HTTP process, `WORKERS` of them behind one address.

Reads the environment; without `REDIS_URL` it joins what a launcher runs for the same `DATA_DIR`.
Exit status: 2 configuration, 98 the address is taken.
"""

import os
import resource
import sys

from shared import address, discovery
from shared.log import set_up_log
from shared.run_directory import RunDirectory
from shared.settings import Settings, SettingsError, environment_of, notices


def main() -> int:
    try:
        settings = discovery.load_settings(os.environ)
        for line in notices(os.environ):
            print(line, file=sys.stderr)
        with address.claimed(settings.listen_address, settings.service_port):
            return _serve(settings)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    except address.AddressTaken as error:
        print(error, file=sys.stderr)
        return address.TAKEN_STATUS


def _serve(settings: Settings) -> int:
    set_up_log("gateway", settings)
    raise_open_files()
    run = RunDirectory("gateway")
    metric_files = run.path / "metrics"
    metric_files.mkdir()
    os.environ.update(environment_of(settings))
    # Read when prometheus_client is imported, so before anything that imports it.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metric_files)
    try:
        from gateway import server

        server.serve(settings, run_directory=run.path)
    finally:
        run.remove()
    return 0


def raise_open_files() -> None:
    """Thousands of streams need two sockets each; the soft limit is often 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1_048_576 if hard == resource.RLIM_INFINITY else hard
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    sys.exit(main())
