"""Every kind of `REDIS_URL` carries a turn from its lease to its release."""

import asyncio
import datetime
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shared.errors import StoreUnavailable
from shared.settings import Settings
from shared.store.connection import Connection
from shared.store.leases import SERVED
from shared.store.store import Store
from tests.fakes.redis_server import RedisServer, redis_binary
from tests.integration.store.pool import email, entries, sign_in, until

pytestmark = pytest.mark.anyio

Start = Callable[..., RedisServer]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts servers in short folders (a unix socket's path is limited); all stop at the end."""
    servers = []

    def start_one(*options: str, binary: str = "") -> RedisServer:
        server = RedisServer(Path(tempfile.mkdtemp(prefix="gw-redis-")), *options, binary=binary)
        servers.append(server)
        server.start()
        return server

    yield start_one
    for server in servers:
        server.stop()
        shutil.rmtree(server.folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def exercise(url: str) -> None:
    """A login, a queue, a lease and a key through this URL."""
    settings = Settings(redis_url=url, secret_key="x" * 32, login_min_interval_ms=0)
    async with Store(settings) as store:

        async def answers() -> bool:
            try:
                await store.ping()
            except StoreUnavailable:
                return False
            return True

        await until(answers, seconds=10)
        await store.accounts.add_missing(entries(2))
        await sign_in(store, email(0))
        held = [await store.leases.acquire("chat") for _ in range(4)]
        waiter = asyncio.create_task(store.leases.lend("chat", wait_seconds=5))
        await asyncio.sleep(0.05)
        await store.leases.release(held[0], SERVED)
        assert await waiter
        created = await store.api_keys.create("a key")
        assert (await store.api_keys.find(created.key)).name == "a key"
        assert (await store.limits.take("k", 60)).remaining == 59
        assert (await store.pool_state()).leases_in_flight == 4


async def test_a_plain_url_works(start: Start) -> None:
    port = free_port()
    start("--port", str(port), "--requirepass", "p:ss")
    await exercise(f"redis://:p%3Ass@127.0.0.1:{port}/3")


async def test_a_cluster_url_works_for_the_whole_pool(start: Start) -> None:
    port = free_port()
    bus = str(free_port())
    server = start("--port", str(port), "--cluster-enabled", "yes", "--cluster-port", bus)
    assert server.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383") == b"+OK\r\n"

    async def ready() -> bool:
        return b"cluster_state:ok" in server.command("CLUSTER", "INFO")

    await until(ready, seconds=10)
    await exercise(f"redis+cluster://127.0.0.1:{port}")
    connection = Connection(f"redis+cluster://127.0.0.1:{port}")
    await connection.ask("ping", "PING")
    server.stop()
    with pytest.raises(StoreUnavailable):
        await connection.ask("ping", "PING")
    server.start()

    async def back() -> bool:
        return not connection.is_away

    await until(back, seconds=10)
    await connection.close()


@pytest.mark.parametrize("userinfo", ["", "default:p%3Ass@"], ids=["open", "with a password"])
async def test_a_sentinel_url_finds_the_master(start: Start, tmp_path: Path, userinfo: str) -> None:
    port, sentinel_port = free_port(), free_port()
    start("--port", str(port), *(("--requirepass", "p:ss") if userinfo else ()))
    config = tmp_path / "sentinel.conf"
    lines = [f"port {sentinel_port}", f"sentinel monitor main 127.0.0.1 {port} 1"]
    lines += ["sentinel auth-pass main p:ss"] if userinfo else []
    config.write_text("\n".join(lines) + "\n")
    sentinel = subprocess.Popen(
        [redis_binary(), str(config), "--sentinel"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        # The first address is dead: the second sentinel of the list answers.
        hosts = f"127.0.0.1:{free_port()},127.0.0.1:{sentinel_port}"
        await exercise(f"redis+sentinel://{userinfo}{hosts}/main/0")
    finally:
        sentinel.kill()
        sentinel.wait()


@pytest.mark.component("redis-server")
async def test_a_tls_url_works(start: Start, tmp_path: Path) -> None:
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("needs a Redis with TLS: apt-get install redis-server")
    certificate, key = write_certificate(tmp_path)
    port = free_port()
    files = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    files += ["--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no"]
    start("--tls-port", str(port), *files, binary=binary)
    await exercise(f"rediss://localhost:{port}?ssl_ca_certs={certificate}")


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost, signed by itself."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate_file, key_file = folder / "server.crt", folder / "server.key"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate_file, key_file
