#!/bin/sh
# Waits for the Redis that REDIS_URL names, then becomes the process itself, so that the container's
# SIGTERM reaches it. Usage: entrypoint.sh gateway | workers [import FILE…] | launcher
set -eu

case "${1:-gateway}" in
    gateway | workers) module=${1:-gateway} ;;
    # Its own Redis; a container has no .env, so the working directory is the data volume's.
    launcher) cd "${DATA_DIR:-/data}" && exec python -m deploy.local run ;;
    *) exec "$@" ;;
esac

python - <<'PYTHON'
import os, socket, sys, time, urllib.parse

url = urllib.parse.urlsplit(os.environ.get("REDIS_URL", ""))
if url.scheme in ("redis", "rediss") and url.hostname:
    deadline = time.monotonic() + float(os.environ.get("WAIT_FOR_REDIS_SECONDS", "60"))
    while True:
        try:
            socket.create_connection((url.hostname, url.port or 6379), 2).close()
            break
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"no Redis at {url.hostname}:{url.port or 6379}: {error}")
            time.sleep(0.5)
PYTHON

[ $# -eq 0 ] || shift
exec python -m "$module" "$@"
