"""Uploads: the temporary credential, the object store with real signatures, parsing of documents (sections 9, 15.5).

The store is path style on the simulator's own port, `PUT /<bucket>/<key>`, and answers to the virtual host
`<bucket>.<region>.aliyuncs.com` too. Signatures of version 1 and version 4 are computed and compared.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
import re
import secrets
import time
import uuid
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, unquote, urlsplit

import msgspec

from tests.simulator import accounts
from tests.simulator.connection import Exchange, Request, Response, json_response
from tests.simulator.failures import FAILURES, envelope_response, refuse

if TYPE_CHECKING:
    from tests.simulator.config import Config
    from tests.simulator.script import Action
    from tests.simulator.state import State

BUCKET = "sim-bucket"
REGION = "oss-ap-southeast-1"
KINDS = ("image", "video", "audio", "file")
SKEW_SECONDS = 15 * 60
V4_SERVICE = "aliyun_v4_request"
KEPT_BYTES = 256 * 2**20


class Upload(msgspec.Struct):
    """One file from its credential to its use."""

    file_id: str
    email: str
    key: str
    kind: str
    key_id: str
    key_secret: str
    security_token: str
    expires_at: float
    url: str
    url_expires_at: float
    data: bytes | None = None
    content_type: str = ""
    parse: str = ""  # "", pending, success, failed
    parse_final: str = "success"
    parse_asked: int = 0


class StorageError(Exception):
    """A refusal of the object store: the XML's `Code`, its message, the status."""

    def __init__(self, code: str, message: str, status: int = 403) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status

    def response(self) -> Response:
        return xml_error(self.code, self.message, self.status)


class Storage:
    """Uploads by object key, by access key and by file id."""

    def __init__(self) -> None:
        self._by_key: dict[str, Upload] = {}
        self._by_credential: dict[str, Upload] = {}
        self._by_id: dict[str, Upload] = {}
        self._signing_key = secrets.token_bytes(16)
        self._stored: deque[Upload] = deque()
        self._stored_bytes = 0

    def prepare(
        self, owner: str, owner_id: str, name: str, kind: str, base: str, config: Config
    ) -> Upload:
        """A credential for one new key, and the address the file will have."""
        file_id = str(uuid.uuid4())
        key = f"{owner_id}/{file_id}_{name.replace('/', '_')}"
        url_expires_at = time.time() + config.file_url_seconds
        upload = Upload(
            file_id=file_id,
            email=owner,
            key=key,
            kind=kind,
            key_id="STS." + secrets.token_hex(8),
            key_secret=secrets.token_urlsafe(24),
            security_token="CAIS" + secrets.token_urlsafe(48),
            expires_at=time.time() + config.credential_seconds,
            url=self._signed(f"{base}/{BUCKET}/{quote(key)}", key, url_expires_at),
            url_expires_at=url_expires_at,
        )
        self._by_key[key] = self._by_credential[upload.key_id] = self._by_id[file_id] = upload
        return upload

    def _signed(self, address: str, key: str, expires_at: float) -> str:
        return (
            f"{address}?Expires={int(expires_at)}&Signature={self._signature(key, int(expires_at))}"
        )

    def _signature(self, key: str, expires_at: int) -> str:
        return hmac.new(self._signing_key, f"{key} {expires_at}".encode(), "sha256").hexdigest()

    def readable(self, key: str, query: dict[str, str]) -> Upload | None:
        """The stored file when the address's signature is right and has not lapsed (15.5)."""
        upload = self._by_key.get(key)
        until = query.get("Expires", "")
        if upload is None or upload.data is None or not until.isdigit() or int(until) < time.time():
            return None
        right = self._signature(key, int(until))
        return upload if hmac.compare_digest(query.get("Signature", ""), right) else None

    def usable(self, url: str, exchange: Exchange, state: State) -> bool:
        """Whether a message may name this address: http(s); when it is ours, uploaded by this account,
        not lapsed, and parsed if it is a document (5.1, 9, 15.5)."""
        split = urlsplit(url)
        if split.scheme not in ("http", "https") or not split.netloc:
            return False
        path = unquote(split.path).removeprefix(exchange.prefix)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        if path.startswith("/media/"):
            return state.media.opens(path, query.get("key", ""))
        if not path.startswith(f"/{BUCKET}/"):
            return True
        upload = self.readable(path.removeprefix(f"/{BUCKET}/"), query)
        if upload is None or upload.email != exchange.email:
            return False
        return upload.kind != "file" or upload.parse == "success"

    def store(self, upload: Upload, data: bytes, content_type: str) -> None:
        """Keep the bytes; those of the oldest files give way when there are too many."""
        upload.data, upload.content_type = data, content_type
        self._stored.append(upload)
        self._stored_bytes += len(data)
        while self._stored_bytes > KEPT_BYTES and len(self._stored) > 1:
            oldest = self._stored.popleft()
            self._stored_bytes -= len(oldest.data or b"")
            oldest.data = b""

    def of_credential(self, key_id: str) -> Upload | None:
        return self._by_credential.get(key_id)

    def of_id(self, file_id: str, owner: str) -> Upload | None:
        upload = self._by_id.get(file_id)
        return upload if upload is not None and upload.email == owner else None

    @property
    def uploads(self) -> list[Upload]:
        return list(self._by_id.values())


# -- the web host's part


def sts_token(state: State, exchange: Exchange) -> Response:
    """`POST /api/v1/files/getstsToken` `{"filename", "filesize", "filetype"}` (9); 403 = token problem."""
    account = accounts.authorize(state, exchange.request, "cookie")
    if isinstance(account, Response):
        return envelope_response(FAILURES["Unauthorized"], 403)
    body = exchange.request.json()
    name, size, kind = body.get("filename"), body.get("filesize"), body.get("filetype")
    sized = isinstance(size, int) and not isinstance(size, bool) and size > 0
    if not isinstance(name, str) or not name or not sized or kind not in KINDS:
        return refuse("Bad_Request", details="file data is missing or wrong")
    base = f"http://{exchange.request.headers.get('host', '')}{exchange.prefix}"
    upload = state.storage.prepare(account.email, account.id, name, kind, base, state.config)
    answer = {
        "access_key_id": upload.key_id,
        "access_key_secret": upload.key_secret,
        "security_token": upload.security_token,
        "bucketname": BUCKET,
        "region": REGION,
        "endpoint": f"{REGION}.aliyuncs.com",
        "file_path": upload.key,
        "file_url": upload.url,
        "file_id": upload.file_id,
    }
    if state.config.sts_form == "envelope":
        return json_response({"success": True, "request_id": str(uuid.uuid4()), "data": answer})
    return json_response(answer)


def parse(state: State, exchange: Exchange) -> Response:
    """`POST /api/v2/files/parse {"file_id"}` (9). An action's `task_status` says how it will end."""
    upload = state.storage.of_id(str(exchange.request.json().get("file_id", "")), exchange.email)
    if upload is None or upload.data is None:
        return refuse("Not_Found", details="The file is not exist.")
    upload.parse, upload.parse_asked = "pending", 0
    action: Action | None = exchange.action
    if action is not None and action.task_status is not None:
        upload.parse_final = action.task_status
    return json_response(
        {"success": True, "data": {"file_id": upload.file_id, "status": "pending"}}
    )


def parse_status(state: State, exchange: Exchange) -> Response:
    """`POST /api/v2/files/parse/status {"file_id_list"}`: pending `parse_polls` times, then the end (9)."""
    wanted = exchange.request.json().get("file_id_list")
    if not isinstance(wanted, list):
        return refuse("Bad_Request", details="file_id_list is missing")
    rows = [_parse_row(state, exchange.email, str(file_id)) for file_id in wanted]
    return json_response({"success": True, "data": rows})


def _parse_row(state: State, owner: str, file_id: str) -> dict[str, str]:
    upload = state.storage.of_id(file_id, owner)
    if upload is None or not upload.parse:
        return {"file_id": file_id, "status": "failed", "error_code": "not_found", "error_msg": ""}
    upload.parse_asked += 1
    if upload.parse_asked > state.config.parse_polls:
        upload.parse = upload.parse_final
    failed = upload.parse == "failed"
    return {
        "file_id": file_id,
        "status": upload.parse,
        "error_code": "parse_error" if failed else "",
        "error_msg": "The document could not be read." if failed else "",
    }


# -- the object store


def put_object(state: State, exchange: Exchange) -> Response:
    """`PUT /<bucket>/<key>`: 200 and `ETag`, or XML with `<Code>` (9)."""
    request = exchange.request
    try:
        upload = _checked(state, request, exchange.params[0])
    except StorageError as error:
        return error.response()
    exchange.email = upload.email
    state.storage.store(upload, request.body, request.headers.get("content-type", ""))
    state.stats.uploads[upload.email] += 1
    tag = hashlib.md5(request.body, usedforsecurity=False).hexdigest().upper()
    return Response(200, b"", "", [("etag", f'"{tag}"'), ("x-oss-request-id", uuid.uuid4().hex)])


def get_object(state: State, exchange: Exchange) -> Response:
    """The stored file under its signed address; 403 once that lapsed (15.5)."""
    upload = state.storage.readable(exchange.params[0], exchange.request.query)
    if upload is None or upload.data is None:
        return xml_error("AccessDenied", "Request has expired.", 403)
    return Response(200, upload.data, upload.content_type or "application/octet-stream")


def failure(action: Action) -> Response:
    """A scripted refusal of the store; `fail` is the XML's code."""
    code = action.fail or "InternalError"
    status = action.status or (500 if code == "InternalError" else 403)
    return xml_error(code, action.details or code, status)


def xml_error(code: str, message: str, status: int) -> Response:
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error>\n  <Code>{code}</Code>\n  <Message>{message}</Message>\n"
        f"  <RequestId>{uuid.uuid4().hex}</RequestId>\n</Error>\n"
    )
    return Response(status, text.encode(), "application/xml")


def _checked(state: State, request: Request, key: str) -> Upload:
    """The upload this request is allowed to write."""
    authorization = request.headers.get("authorization", "")
    if not authorization:
        raise StorageError("AccessDenied", "Anonymous access is forbidden.")
    four = authorization.startswith("OSS4-HMAC-SHA256 ")
    claim = _claim_v4(authorization) if four else _claim_v1(authorization)
    upload = state.storage.of_credential(claim["key_id"])
    if upload is None:
        raise StorageError("InvalidAccessKeyId", "The access key id does not exist.")
    if request.headers.get("x-oss-security-token") != upload.security_token:
        raise StorageError("InvalidAccessKeyId", "The security token is missing or wrong.")
    now = time.time() + state.config.clock_skew_seconds
    if now > upload.expires_at + state.config.clock_skew_seconds:
        raise StorageError("SecurityTokenExpired", "The security token has expired.")
    if abs(_sent_at(request, four=four) - now) > SKEW_SECONDS:
        raise StorageError("RequestTimeTooSkewed", "The request time differs too much.")
    right = (
        signature_v4(upload.key_secret, request, key, claim)
        if four
        else signature_v1(upload.key_secret, request, key)
    )
    if not hmac.compare_digest(right, claim["signature"]):
        raise StorageError("SignatureDoesNotMatch", "The signature does not match.")
    if key != upload.key:
        raise StorageError("AccessDenied", "The credential does not cover this key.")
    told = request.headers.get("content-md5")
    digest = hashlib.md5(request.body, usedforsecurity=False).digest()
    if told and told != base64.b64encode(digest).decode():
        raise StorageError("InvalidDigest", "The Content-MD5 is wrong.", 400)
    return upload


def _claim_v1(authorization: str) -> dict[str, str]:
    found = re.fullmatch(r"OSS ([^:\s]+):(\S+)", authorization)
    if found is None:
        raise StorageError("InvalidArgument", "Authorization is malformed.", 400)
    return {"key_id": found.group(1), "signature": found.group(2)}


def _claim_v4(authorization: str) -> dict[str, str]:
    parts = authorization.removeprefix("OSS4-HMAC-SHA256 ").split(",")
    fields = dict(part.strip().partition("=")[::2] for part in parts)
    scope = fields.get("Credential", "").split("/")
    if len(scope) != 5 or scope[3] != "oss" or scope[4] != V4_SERVICE or "Signature" not in fields:
        raise StorageError("InvalidArgument", "Authorization is malformed.", 400)
    return {
        "key_id": scope[0],
        "date": scope[1],
        "region": scope[2],
        "additional": fields.get("AdditionalHeaders", ""),
        "signature": fields["Signature"],
    }


def _sent_at(request: Request, *, four: bool) -> float:
    text = request.headers.get("x-oss-date") or request.headers.get("date", "")
    try:
        if four:
            moment = datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        else:
            moment = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError) as error:
        raise StorageError("AccessDenied", "A valid Date or x-oss-date is needed.") from error
    return moment.timestamp()


def signature_v1(secret: str, request: Request, key: str) -> str:
    """base64(HMAC-SHA1) over verb, MD5, type, date, x-oss headers and `/bucket/key` unescaped (9)."""
    headers = request.headers
    date = headers.get("x-oss-date") or headers.get("date", "")
    extra = sorted((name, value) for name, value in headers.items() if name.startswith("x-oss-"))
    lines = "".join(f"{name}:{value.strip()}\n" for name, value in extra)
    text = (
        f"PUT\n{headers.get('content-md5', '')}\n{headers.get('content-type', '')}\n{date}\n"
        f"{lines}/{BUCKET}/{key}"
    )
    return base64.b64encode(hmac.new(secret.encode(), text.encode(), "sha1").digest()).decode()


def signature_v4(secret: str, request: Request, key: str, claim: dict[str, str]) -> str:
    """OSS4-HMAC-SHA256 over the canonical request; the region is named without `oss-` (9)."""
    headers = request.headers
    if claim["region"] != REGION.removeprefix("oss-"):
        raise StorageError("InvalidArgument", "The region in the scope is wrong.", 400)
    stamp = headers.get("x-oss-date", "")
    if not stamp.startswith(claim["date"]):
        raise StorageError("InvalidArgument", "The date in the scope is wrong.", 400)
    named = [name for name in claim["additional"].lower().split(";") if name]
    signed = {
        name: value.strip()
        for name, value in headers.items()
        if name in ("content-type", "content-md5") or name.startswith("x-oss-") or name in named
    }
    canonical = "\n".join(
        [
            "PUT",
            "/" + BUCKET + "/" + quote(key, safe="/-_.~"),
            "",
            "".join(f"{name}:{signed[name]}\n" for name in sorted(signed)),
            ";".join(sorted(named)),
            headers.get("x-oss-content-sha256", "UNSIGNED-PAYLOAD"),
        ]
    )
    scope = f"{claim['date']}/{claim['region']}/oss/{V4_SERVICE}"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"OSS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
    link = f"aliyun_v4{secret}".encode()
    for part in (claim["date"], claim["region"], "oss", V4_SERVICE):
        link = hmac.new(link, part.encode(), "sha256").digest()
    return hmac.new(link, text.encode(), "sha256").hexdigest()
