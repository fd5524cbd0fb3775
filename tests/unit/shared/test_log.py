import asyncio
import io
import logging
import multiprocessing
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import log
from shared.settings import load


@pytest.fixture(autouse=True)
def own_root() -> Iterator[None]:
    """Every test may set logging up; the runner's own handlers come back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        if handler not in handlers:
            handler.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(False)


def lines_of(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return capfd.readouterr().err.splitlines()


def test_one_event_is_one_line_of_fields(capfd: pytest.CaptureFixture[str]) -> None:
    log.set_up("gateway")
    logging.getLogger("gateway.turn").info("turn ended", extra={"status": 200, "model": "qwen3"})
    [line] = lines_of(capfd)
    assert line.startswith("at=2")
    assert "level=info process=gateway pid=" in line
    assert 'logger=gateway.turn event="turn ended" status=200 model=qwen3' in line


def test_an_exception_stays_on_its_line(capfd: pytest.CaptureFixture[str]) -> None:
    log.set_up("gateway")
    try:
        raise ValueError("two\nlines with Bearer abcdef0123456789")
    except ValueError:
        logging.getLogger("x").exception("job failed")
    [line] = lines_of(capfd)
    assert "exception=" in line
    assert "ValueError: two\\nlines" in line
    assert "abcdef0123456789" not in line


@pytest.mark.anyio
async def test_context_reaches_tasks_begun_inside_and_ends_with_its_block(
    capfd: pytest.CaptureFixture[str],
) -> None:
    log.set_up("gateway")

    async def speak(text: str) -> None:
        logging.getLogger("x").info(text)

    with log.context(request_id="req_1"):
        with log.context(account="a1"):
            await asyncio.create_task(speak("inner"))
        await speak("outer")
    await speak("after")
    inner, outer, after = lines_of(capfd)
    assert "request_id=req_1" in inner
    assert "account=a1" in inner
    assert "request_id=req_1" in outer
    assert "account" not in outer
    assert "request_id" not in after


JWT = "eyJhbGciOiJIUzI1NiJ9.eyJpZCI6IjEiLCJleHAiOjF9.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer abc.def-123", "abc.def-123"),
        ("key sk-AbCdEf0123456789_-xyz was used", "AbCdEf0123456789_-xyz"),
        (f"token is {JWT}", JWT),
        (f'{{"token":"{JWT}"}}', JWT),
        ('{"password": "hunter two", "email": 1}', "hunter two"),
        ('{\\"password\\":\\"hunter2\\"}', "hunter2"),
        ("password=hunter2&x=1", "hunter2"),
        ("{'password': 'hunter2'}", "hunter2"),
        ("proxy socks5://user:p%40ss@127.0.0.1:1080 failed", "p%40ss"),
        ("redis://:s3cret@10.0.0.1:6379/0", "s3cret"),
        ("Cookie: ssxmod=1; token=abc", "ssxmod=1"),
        ("set-cookie: token=abcdef; Path=/", "abcdef"),
        ("x-api-key: plain-old-value", "plain-old-value"),
        ("api_key='plain old value'", "plain old value"),
        ("somebody.long@example.com could not log in", "somebody.long@"),
        ("Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, secret: str) -> None:
    shown = log.Redactor()(text)
    assert secret not in shown
    assert log.MASK in shown


@pytest.mark.parametrize(
    "name", ["password", "api_key", "access_token", "Authorization", "cookie", "account.password"]
)
def test_a_field_named_like_a_secret_is_masked(
    capfd: pytest.CaptureFixture[str], name: str
) -> None:
    log.set_up("gateway")
    logging.getLogger("x").info("e", extra={name: "open sesame"})
    [line] = lines_of(capfd)
    assert "sesame" not in line


def test_counts_of_tokens_are_no_secrets(capfd: pytest.CaptureFixture[str]) -> None:
    log.set_up("gateway")
    logging.getLogger("x").info("turn ended", extra={"input_tokens": 12, "output_tokens": 34})
    [line] = lines_of(capfd)
    assert "input_tokens=12 output_tokens=34" in line


def test_known_secrets_are_masked_whatever_they_look_like(
    capfd: pytest.CaptureFixture[str],
) -> None:
    log.set_up("gateway", secrets=["open sesame", "open"])
    logging.getLogger("x").info("said open sesame to the door", extra={"said": "open sesame"})
    [line] = lines_of(capfd)
    assert "sesame" not in line


def test_every_secret_of_the_settings_is_masked_by_its_value(
    capfd: pytest.CaptureFixture[str],
) -> None:
    settings = load(
        {
            "API_KEY": "plain admin, plain regular",
            "ACCOUNTS": "a@example.com:pa$$ #1|socks5://u:proxypw@10.0.0.1:1080",
            "SECRET_KEY": "s" * 40,
            "METRICS_TOKEN": "metrics token",
            "REDIS_URL": "redis://:redis%20pw@localhost/0",
        }
    )
    log.set_up_log("gateway", settings)
    for secret in settings.secret_values:
        logging.getLogger("x").info("said %s", secret)
    said = capfd.readouterr().err
    assert len(said.splitlines()) == len(settings.secret_values) == 8
    assert not [secret for secret in settings.secret_values if secret in said]


def test_the_file_log_is_written_where_the_settings_say(tmp_path: Path) -> None:
    log.set_up_log("workers", load({"ENABLE_FILE_LOG": "true", "LOG_DIR": str(tmp_path)}))
    logging.getLogger("x").info("kept")
    assert "event=kept" in (tmp_path / "workers.log").read_text()


@given(st.text(max_size=200))
def test_a_line_never_breaks_whatever_it_says(text: str) -> None:
    formatter = log.LineFormatter("p", log.Redactor())
    record = logging.LogRecord("x", logging.INFO, "f", 1, "%s", (text,), None)
    record.said = text
    assert len(formatter.format(record).splitlines()) == 1


def test_redaction_is_linear_in_the_length_of_the_text() -> None:
    """A caller's text of 1 MB must not hold up the process: measured, not timed: it just ends."""
    redact = log.Redactor()
    for piece in ("a", "@", "http://", "password", "sk-", "eyJ", "cookie:", "a.b@", "bearer "):
        redact(piece * (200_000 // len(piece)))


def test_a_broken_stderr_does_not_break_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    log.set_up("gateway")
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    logging.getLogger("x").info("nobody hears this")


def _write_lines(directory: str, name: str, count: int) -> None:
    handler = log.SharedFileHandler(Path(directory) / "gateway.log", 2_000, 1_000)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for number in range(count):
        handler.emit(logging.LogRecord("x", 20, "f", 1, f"{name}-{number:04}", (), None))
    handler.close()


def test_processes_share_a_rotating_file_without_losing_a_line(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    start = multiprocessing.get_context("spawn")
    writers = [start.Process(target=_write_lines, args=(str(tmp_path), n, 400)) for n in names]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    files = [f for f in tmp_path.iterdir() if f.suffix != ".lock"]
    assert len(files) > 3
    written = [line for f in files for line in f.read_text().splitlines()]
    assert sorted(written) == sorted(f"{n}-{i:04}" for n in names for i in range(400))


def test_no_more_rotated_files_are_kept_than_asked(tmp_path: Path) -> None:
    handler = log.SharedFileHandler(tmp_path / "gateway.log", 100, 2)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for number in range(100):
        handler.emit(logging.LogRecord("x", 20, "f", 1, f"line {number:04}", (), None))
    handler.close()
    kept = sorted(f.name for f in tmp_path.iterdir() if not f.name.endswith(".lock"))
    assert kept == ["gateway.log", "gateway.log.1", "gateway.log.2"]


def test_a_log_follows_the_level_and_the_secrets_of_changed_settings(
    capfd: pytest.CaptureFixture[str],
) -> None:
    log.set_up_log("gateway", load({}))
    logger = logging.getLogger("test")
    log.follow(load({"LOG_LEVEL": "WARNING", "SITE_COOKIES": "a-new-secret"}))
    logger.info("unheard")
    logger.warning("told", extra={"what": "a-new-secret"})
    [line] = lines_of(capfd)
    assert "what=***" in line
    log.follow(load({}))
    logger.info("told again")
    assert len(lines_of(capfd)) == 1
