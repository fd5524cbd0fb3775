"""Uploads with real signatures: sections 9 and 15.5. The signatures here are computed from the sheet, not by the simulator."""

import base64
import hashlib
import hmac
import time
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any
from urllib.parse import quote

import pytest

from tests.integration.simulator.raw import Reply, ask, message, sign_in, turn
from tests.simulator.server import Simulator

pytestmark = pytest.mark.anyio

STS = "/api/v1/files/getstsToken"
PNG = {"filename": "a cat ü.png", "filesize": 4, "filetype": "image"}
DATA = b"\x89PNG"


async def credential(
    sim: Simulator, headers: dict[str, str] | None = None, **changes: Any
) -> dict[str, str]:
    headers = headers or await sign_in(sim)
    reply = await ask(sim, "POST", STS, PNG | changes, headers)
    return reply.json()  # type: ignore[no-any-return]  # decoded JSON


def hmac_sha1(secret: str, text: str) -> str:
    return base64.b64encode(hmac.new(secret.encode(), text.encode(), "sha1").digest()).decode()


def v1(
    given: dict[str, str], *, date: str | None = None, kind: str = "image/png"
) -> dict[str, str]:
    """Section 9: the string to sign of version 1."""
    date = date or formatdate(usegmt=True)
    text = (
        f"PUT\n\n{kind}\n{date}\nx-oss-security-token:{given['security_token']}\n"
        f"/{given['bucketname']}/{given['file_path']}"
    )
    return {
        "authorization": f"OSS {given['access_key_id']}:{hmac_sha1(given['access_key_secret'], text)}",
        "x-oss-security-token": given["security_token"],
        "date": date,
        "content-type": kind,
    }


def v4(given: dict[str, str], *, at: float | None = None, additional: str = "") -> dict[str, str]:
    """OSS4-HMAC-SHA256 with `UNSIGNED-PAYLOAD`."""
    stamp = datetime.fromtimestamp(at or time.time(), UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {
        "content-type": "image/png",
        "x-oss-content-sha256": "UNSIGNED-PAYLOAD",
        "x-oss-date": stamp,
        "x-oss-security-token": given["security_token"],
    }
    signed = dict(headers)
    if additional:
        signed[additional] = headers[additional] = "sim.test"
    region = given["region"].removeprefix("oss-")
    scope = f"{stamp[:8]}/{region}/oss/aliyun_v4_request"
    path = f"/{given['bucketname']}/{quote(given['file_path'])}"
    lines = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
    canonical = f"PUT\n{path}\n\n{lines}\n{additional}\nUNSIGNED-PAYLOAD"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"OSS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
    key = f"aliyun_v4{given['access_key_secret']}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), "sha256").digest()
    mark = f"AdditionalHeaders={additional}," if additional else ""
    claim = f"Credential={given['access_key_id']}/{scope},{mark}Signature="
    signature = hmac.new(key, text.encode(), "sha256").hexdigest()
    return headers | {"authorization": f"OSS4-HMAC-SHA256 {claim}{signature}"}


async def put(
    sim: Simulator, given: dict[str, str], headers: dict[str, str], key: str = ""
) -> Reply:
    path = f"/{given['bucketname']}/{quote(key or given['file_path'])}"
    return await ask(sim, "PUT", path, DATA, headers)


def code_of(reply: Reply) -> str:
    assert reply.headers["content-type"] == "application/xml"
    return reply.body.decode().split("<Code>")[1].split("</Code>")[0]


# -- the credential


async def test_the_credential_comes_bare(sim: Simulator) -> None:
    """Section 9."""
    given = await credential(sim)
    assert set(given) == {
        "access_key_id",
        "access_key_secret",
        "security_token",
        "bucketname",
        "region",
        "endpoint",
        "file_path",
        "file_url",
        "file_id",
    }


async def test_the_credential_comes_in_an_envelope(sim: Simulator) -> None:
    """Section 9."""
    sim.configure(sts_form="envelope")
    assert (await credential(sim))["data"]["file_id"]  # type: ignore[index]  # nested here


@pytest.mark.parametrize(
    "change", [{"filename": ""}, {"filesize": 0}, {"filesize": "4"}, {"filetype": "picture"}]
)
async def test_wrong_file_data_is_refused(sim: Simulator, change: dict[str, Any]) -> None:
    """Section 9."""
    reply = await ask(sim, "POST", STS, PNG | change, await sign_in(sim))
    assert reply.code == "Bad_Request"


async def test_a_token_problem_is_403(sim: Simulator) -> None:
    """Section 9."""
    assert (await ask(sim, "POST", STS, PNG)).status == 403


# -- the object store


async def test_version_1_is_accepted(sim: Simulator) -> None:
    """Section 9."""
    given = await credential(sim)
    reply = await put(sim, given, v1(given))
    assert reply.status == 200
    assert reply.headers["etag"] == f'"{hashlib.md5(DATA).hexdigest().upper()}"'
    stored = await ask(sim, "GET", given["file_url"].removeprefix(sim.url))
    assert (stored.body, stored.headers["content-type"]) == (DATA, "image/png")


async def test_version_1_with_x_oss_date_signs_that_one(sim: Simulator) -> None:
    """Section 9: the date of `x-oss-date` counts, and the header is among the x-oss headers."""
    given = await credential(sim)
    date = formatdate(usegmt=True)
    text = (
        f"PUT\n\nimage/png\n{date}\nx-oss-date:{date}\n"
        f"x-oss-security-token:{given['security_token']}\n/{given['bucketname']}/{given['file_path']}"
    )
    headers = v1(given) | {"x-oss-date": date}
    signature = hmac_sha1(given["access_key_secret"], text)
    headers["authorization"] = f"OSS {given['access_key_id']}:{signature}"
    assert (await put(sim, given, headers)).status == 200


@pytest.mark.parametrize("additional", ["", "host"])
async def test_version_4_is_accepted(sim: Simulator, additional: str) -> None:
    """Section 9."""
    given = await credential(sim)
    assert (await put(sim, given, v4(given, additional=additional))).status == 200


async def test_the_virtual_host_is_understood(sim: Simulator) -> None:
    """Section 9: `<bucketname>.<region>.aliyuncs.com`."""
    given = await credential(sim)
    host = {"host": f"{given['bucketname']}.{given['region']}.aliyuncs.com"}
    reply = await ask(sim, "PUT", "/" + quote(given["file_path"]), DATA, v1(given) | host)
    assert reply.status == 200


async def test_a_wrong_signature_is_refused(sim: Simulator) -> None:
    """Section 9."""
    given = await credential(sim)
    wrong = given | {"access_key_secret": "other"}
    for headers in (v1(wrong), v4(wrong), v1(given) | {"content-type": "image/jpeg"}):
        reply = await put(sim, given, headers)
        assert (reply.status, code_of(reply)) == (403, "SignatureDoesNotMatch")


async def test_an_unknown_access_key_is_refused(sim: Simulator) -> None:
    """Section 9."""
    given = await credential(sim)
    reply = await put(sim, given, v1(given | {"access_key_id": "STS.other"}))
    assert code_of(reply) == "InvalidAccessKeyId"


@pytest.mark.parametrize("token", [None, "other"])
async def test_the_security_token_is_needed(sim: Simulator, token: str | None) -> None:
    """Section 9."""
    given = await credential(sim)
    headers = v1(given)
    del headers["x-oss-security-token"]
    if token:
        headers["x-oss-security-token"] = token
    assert (await put(sim, given, headers)).status == 403


async def test_without_authorization_access_is_denied(sim: Simulator) -> None:
    given = await credential(sim)
    assert code_of(await put(sim, given, {"content-type": "image/png"})) == "AccessDenied"


async def test_the_credential_covers_one_key_only(sim: Simulator) -> None:
    """Section 9."""
    given = await credential(sim)
    other = given | {"file_path": given["file_path"] + ".2"}
    for headers in (v1(other), v4(other)):
        assert code_of(await put(sim, other, headers)) == "AccessDenied"


async def test_a_lapsed_credential_is_refused(sim: Simulator) -> None:
    """Section 9: about 300 s."""
    sim.configure(credential_seconds=-1)
    given = await credential(sim)
    assert code_of(await put(sim, given, v1(given))) == "SecurityTokenExpired"


async def test_a_clock_more_than_15_minutes_off_is_refused(sim: Simulator) -> None:
    """Section 9."""
    given = await credential(sim)
    late = time.time() - 16 * 60
    for headers in (v1(given, date=formatdate(late, usegmt=True)), v4(given, at=late)):
        assert code_of(await put(sim, given, headers)) == "RequestTimeTooSkewed"
    nearly = v1(given, date=formatdate(time.time() - 14 * 60, usegmt=True))
    assert (await put(sim, given, nearly)).status == 200


async def test_the_hosts_own_clock_can_be_off(sim: Simulator) -> None:
    sim.configure(clock_skew_seconds=3600)
    given = await credential(sim)
    assert code_of(await put(sim, given, v1(given))) == "RequestTimeTooSkewed"


async def test_a_scripted_failure_of_the_store_is_xml(sim: Simulator) -> None:
    """Section 9."""
    given = await credential(sim)
    sim.next(operation="upload", fail="InternalError")
    reply = await put(sim, given, v1(given))
    assert (reply.status, code_of(reply)) == (500, "InternalError")
    assert (await put(sim, given, v1(given))).status == 200


# -- using the file


async def uploaded(sim: Simulator, headers: dict[str, str], kind: str = "image") -> dict[str, str]:
    given = await credential(sim, headers, filetype=kind)
    assert (await put(sim, given, v1(given))).status == 200
    return given


def with_file(url: str, kind: str = "image") -> list[dict[str, Any]]:
    return [message("look") | {"files": [{"type": kind, "url": url}]}]


async def test_an_uploaded_file_can_be_used_by_its_account_only(sim: Simulator) -> None:
    """Sections 5.1 and 9."""
    headers, other = await sign_in(sim, 1), await sign_in(sim, 2)
    given = await uploaded(sim, headers)
    messages = with_file(given["file_url"])
    assert (await turn(sim, headers=headers, messages=messages)).text()
    refused = await turn(sim, headers=other, messages=messages)
    assert refused.json()["data"]["details"] == "invalid attachment"


async def test_a_file_that_was_never_put_cannot_be_used(sim: Simulator) -> None:
    headers = await sign_in(sim)
    given = await credential(sim, headers)
    reply = await turn(sim, headers=headers, messages=with_file(given["file_url"]))
    assert reply.json()["data"]["details"] == "invalid attachment"


async def test_an_address_lapses(sim: Simulator) -> None:
    """Section 15.5: the URL signature of a fresh upload lives about 300 s."""
    sim.configure(file_url_seconds=-1)
    headers = await sign_in(sim)
    given = await uploaded(sim, headers)
    assert (await ask(sim, "GET", given["file_url"].removeprefix(sim.url))).status == 403
    reply = await turn(sim, headers=headers, messages=with_file(given["file_url"]))
    assert reply.json()["data"]["details"] == "invalid attachment"


async def test_a_document_is_parsed_before_use(sim: Simulator) -> None:
    """Sections 9 and 15.5."""
    headers = await sign_in(sim)
    given = await uploaded(sim, headers, "file")
    messages = with_file(given["file_url"], "file")
    early = await turn(sim, headers=headers, messages=messages)
    assert early.json()["data"]["details"] == "invalid attachment"
    body = {"file_id": given["file_id"]}
    await ask(sim, "POST", "/api/v2/files/parse", body, headers)
    assert await parsed(sim, given, headers) == "pending"
    assert await parsed(sim, given, headers) == "success"
    assert (await turn(sim, headers=headers, messages=messages)).text()


async def parsed(sim: Simulator, given: dict[str, str], headers: dict[str, str]) -> str:
    body = {"file_id_list": [given["file_id"]]}
    reply = await ask(sim, "POST", "/api/v2/files/parse/status", body, headers)
    row = reply.json()["data"][0]
    assert set(row) == {"file_id", "status", "error_code", "error_msg"}
    return str(row["status"])


async def test_parsing_can_fail(sim: Simulator) -> None:
    """Section 9."""
    sim.configure(parse_polls=0)
    headers = await sign_in(sim)
    given = await uploaded(sim, headers, "file")
    sim.next(operation="parse", task_status="failed")
    await ask(sim, "POST", "/api/v2/files/parse", {"file_id": given["file_id"]}, headers)
    assert await parsed(sim, given, headers) == "failed"


async def test_a_foreign_file_cannot_be_parsed(sim: Simulator) -> None:
    given = await uploaded(sim, await sign_in(sim, 1), "file")
    body = {"file_id": given["file_id"]}
    reply = await ask(sim, "POST", "/api/v2/files/parse", body, await sign_in(sim, 2))
    assert reply.code == "Not_Found"
