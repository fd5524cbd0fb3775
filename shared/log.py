"""Log lines: one event, one line, fields instead of sentences, nothing secret.

    at=2026-11-23T08:35:03.120Z level=info process=gateway pid=7 logger=gateway.turn
    event="turn ended" request_id=req_1 status=200            (one line)

Lines go to stderr and, when asked, to a file that several processes share. Fields come from
`extra={…}` of one call and from `context(…)` around it. Whatever looks like a secret is masked in
the finished line, so no caller has to remember; known secrets are masked by their value too.

Knows: line format, context, redaction, the shared file. Does not know: the settings.
"""

import fcntl
import logging
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

import msgspec

_NO_FIELDS: Final[Mapping[str, object]] = MappingProxyType({})
_fields: ContextVar[Mapping[str, object]] = ContextVar("log_fields", default=_NO_FIELDS)


class LogFile(msgspec.Struct, frozen=True):
    """A log file that processes share: `<directory>/<process>.log`, rotated to `.1`, `.2` …"""

    directory: str
    max_bytes: int
    rotated_files: int


def set_up(
    process: str, *, level: str = "INFO", secrets: Iterable[str] = (), file: LogFile | None = None
) -> None:
    """Send every logger's lines of this process to stderr (and `file`), redacted.

    Args:
        process: what this process is called in its lines: `gateway`, `workers`, `launcher`.
        secrets: values masked wherever they stand in a line, whatever they look like.

    Calling it again replaces what an earlier call set up (a forked process does).
    """
    formatter = LineFormatter(process, Redactor(secrets))
    handlers: list[logging.Handler] = [_StderrHandler()]
    if file is not None:
        path = Path(file.directory) / f"{process}.log"
        handlers.append(SharedFileHandler(path, file.max_bytes, file.rotated_files))
    for handler in handlers:
        handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        root.addHandler(handler)
    _set_level(level)
    logging.captureWarnings(True)


class LogSettings(Protocol):
    """The part of `shared.settings.Settings` that says how to log."""

    @property
    def log_level(self) -> str: ...
    @property
    def enable_file_log(self) -> bool: ...
    @property
    def log_dir(self) -> str: ...
    @property
    def max_log_file_size(self) -> int: ...
    @property
    def max_log_files(self) -> int: ...
    @property
    def secret_values(self) -> Iterable[str]: ...


def set_up_log(process: str, settings: LogSettings) -> None:
    """`set_up` as the settings say; every secret of the settings is masked by its value."""
    file = None
    if settings.enable_file_log:
        max_bytes = settings.max_log_file_size * 1024 * 1024
        file = LogFile(settings.log_dir, max_bytes, settings.max_log_files)
    set_up(process, level=settings.log_level, secrets=settings.secret_values, file=file)


def follow(settings: LogSettings) -> None:
    """Level and known secrets are those of `settings`; files stay as they were set up.

    A process that never set up a log of ours (a test) is left alone.
    """
    formatters = [
        handler.formatter
        for handler in logging.getLogger().handlers
        if isinstance(handler.formatter, LineFormatter)
    ]
    if formatters:
        _set_level(settings.log_level)
    redact = Redactor(settings.secret_values)
    for formatter in formatters:
        formatter.redact = redact


def _set_level(level: str) -> None:
    root = logging.getLogger()
    root.setLevel(level)
    for chatty in ("asyncio", "httpx", "httpcore", "rq.worker"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))


@contextmanager
def context(**fields: object) -> Iterator[None]:
    """Every line written inside carries these fields, also from tasks that begin inside."""
    token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


def bind(**fields: object) -> None:
    """From here on every line of this task (and of tasks it begins) carries these fields."""
    _fields.set({**_fields.get(), **fields})


def mask_email(address: str) -> str:
    """`somebody@example.com` → `so***@example.com`."""
    name, at, domain = address.partition("@")
    return f"{name[:2]}***{at}{domain}"


MASK: Final = "***"

# Names whose value is never shown: as a field of a line, as `name=value` and `"name": "value"` in
# text.
_NEVER_SHOWN = (
    r"pass(?:word|wd)?|secret(?:_?key)?(?:_?previous)?|api[-_]?keys?|token|access[-_]?token"
    r"|refresh[-_]?token|authorization|(?:set-)?cookies?|site_cookies|credentials?|x-api-key"
)
_SECRET_FIELD = re.compile(rf"^(?:.*[._-])?(?:{_NEVER_SHOWN})$", re.IGNORECASE)

# Order matters: an address with credentials is cut before its `name:password` could be read as an
# e-mail, a header before the token inside it. Every pattern is linear in the length of the line.
_PATTERNS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"\b([a-z][a-z0-9+.-]{1,20}://)[^\s/@\"']{1,512}@", re.IGNORECASE), rf"\1{MASK}@"),
    (re.compile(r"\b((?:set-)?cookie\s*[:=]\s*)[^\r\n\"']+", re.IGNORECASE), rf"\1{MASK}"),
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]+", re.IGNORECASE), rf"\1 {MASK}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"), MASK),
    (re.compile(r"\bsk-[A-Za-z0-9_-]{6,}"), f"sk-{MASK}"),
    (
        re.compile(
            rf"(?<![A-Za-z])((?:{_NEVER_SHOWN})(?:\\?[\"'])?\s*[:=]\s*)"
            r"(?:\\?\"[^\"\\]*\\?\"|'[^']*'|[^\s,;&}\"']+)",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    (
        re.compile(r"\b([A-Za-z0-9][\w.+-]?)[\w.+-]{0,64}@([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)"),
        rf"\1{MASK}@\2",
    ),
)


class Redactor:
    """Masks what looks like a secret, and the known secrets whatever they look like."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # Longest first: a secret that begins with another must not leave its tail behind.
        known = sorted({s for s in secrets if len(s) >= 4}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(MASK, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text


class LineFormatter(logging.Formatter):
    """A record as one line of `name=value`; line breaks are escaped, secrets masked."""

    def __init__(self, process: str, redact: Redactor) -> None:
        super().__init__()
        self._process = process
        self.redact = redact

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, object] = {
            "at": f"{at}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "process": self._process,
            "pid": os.getpid(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        fields.update(_fields.get())
        fields.update({k: v for k, v in record.__dict__.items() if k not in _RECORD_ATTRIBUTES})
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = self.formatException(record.exc_info)
        return " ".join(f"{name}={self._value(name, value)}" for name, value in fields.items())

    def _value(self, name: str, value: object) -> str:
        if value is None or value == "":
            return '""'
        if _SECRET_FIELD.match(name):
            return MASK
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, (int, float)):
            return f"{value:.6g}" if isinstance(value, float) else str(value)
        text = self.redact(str(value))
        return text if _PLAIN.fullmatch(text) else _quote(text)


_PLAIN: Final = re.compile(r"[\w.:/+,@*?&%#<>()\[\]{}|~^!;-]+")
_ESCAPES: Final = str.maketrans(
    {
        '"': '\\"',
        "\\": "\\\\",
        "\n": "\\n",
        "\r": "\\r",
        "\t": "\\t",
        # What terminals and log readers take for a line break or a command.
        **{chr(c): f"\\x{c:02x}" for c in (*range(9), 11, 12, *range(14, 32), 0x7F, 0x85)},
        "\u2028": "\\u2028",
        "\u2029": "\\u2029",
    }
)
_RECORD_ATTRIBUTES: Final = frozenset(
    {*logging.LogRecord("", 0, "", 0, "", (), None).__dict__, "message", "asctime", "taskName"}
)


def _quote(text: str) -> str:
    return f'"{text.translate(_ESCAPES)}"'


class _LineHandler(logging.Handler):
    """Writes a record's line with one system call, so that lines of several processes don't mix."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.write(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
        except Exception:  # logging never breaks the work it reports on
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing: the standard answer prints the arguments, unredacted."""

    def write(self, line: bytes) -> None:
        raise NotImplementedError


class _StderrHandler(_LineHandler):
    def write(self, line: bytes) -> None:
        # `sys.stderr` may be replaced (a test's capture) or have no descriptor at all.
        stream = sys.stderr
        buffer = getattr(stream, "buffer", None)
        if buffer is None:
            stream.write(line.decode())
        else:
            buffer.write(line)
        stream.flush()


class SharedFileHandler(_LineHandler):
    """Appends to a file that several processes write and any of them may rotate.

    Race: A and B both see a full file; A renames it and goes on in a fresh one, B would rename the
    fresh one too. So rotation happens under a lock file and looks at the size once more; a writer
    whose file was renamed by another notices by its inode and reopens.
    """

    def __init__(self, path: Path, max_bytes: int, rotated_files: int) -> None:
        super().__init__()
        self._path = path
        self._max_bytes = max_bytes
        self._rotated_files = rotated_files
        self._descriptor = -1

    def write(self, line: bytes) -> None:
        size = self._size_if_still_ours()
        if size is None:
            self._open()
        elif size and size + len(line) > self._max_bytes:
            self._rotate(len(line))
        os.write(self._descriptor, line)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        super().close()

    def _size_if_still_ours(self) -> int | None:
        """Bytes in the file, or None when it isn't open or its name leads elsewhere by now."""
        if self._descriptor < 0:
            return None
        ours = os.fstat(self._descriptor)
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return None
        return ours.st_size if (ours.st_ino, ours.st_dev) == (named.st_ino, named.st_dev) else None

    def _open(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o640)

    def _rotate(self, line_bytes: int) -> None:
        lock = os.open(f"{self._path}.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._path.exists() and self._path.stat().st_size + line_bytes > self._max_bytes:
                for number in range(self._rotated_files - 1, 0, -1):
                    older = Path(f"{self._path}.{number}")
                    if older.exists():
                        older.replace(f"{self._path}.{number + 1}")
                self._path.replace(f"{self._path}.1")
        finally:
            os.close(lock)
        self._open()
