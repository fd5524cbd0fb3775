"""What all dialects read alike in a body, before any field means something."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.body import read_body
from shared.errors import BadRequest


class Request(msgspec.Struct):
    text: str
    schema: msgspec.Raw = msgspec.Raw()
    stop: list[str] = []
    tools: int | None = None


DECODER = msgspec.json.Decoder(Request)


def read(body: bytes) -> Request:
    return read_body(body, DECODER)


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (rb"cut \ud83d", "cut \ufffd"),
        (rb"\ud83d cut", "\ufffd cut"),
        (rb"\uDE42", "\ufffd"),
        (rb"\ude42\ud83d", "\ufffd\ufffd"),
        (rb"\ud83d\u0041", "\ufffdA"),
        (rb"\ud83d\n", "\ufffd\n"),
        (rb"\ud83d\ud83d\ude42", "\ufffd\U0001f642"),
        (rb"\ud83d\ude42", "\U0001f642"),
        (rb"\uD83D\uDE42 and \ud83d", "\U0001f642 and \ufffd"),
        (rb"\\ud83d and \ud83d", r"\ud83d" + " and \ufffd"),
        (rb"\\\ud83d", "\\\ufffd"),
        (rb"\\\\ud83d \ud83d", r"\\ud83d" + " \ufffd"),
    ],
)
def test_half_a_character_is_read_as_a_replacement_and_pairs_stay(
    escaped: bytes, text: str
) -> None:
    assert read(b'{"text":"%b"}' % escaped).text == text


@given(st.text(st.characters(exclude_categories=()), max_size=8))
def test_whatever_text_a_javascript_client_holds_is_read(text: str) -> None:
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert read(json.dumps({"text": text}).encode()).text == whole


def test_half_a_character_is_mended_in_what_stays_raw_and_beside_empty_fields() -> None:
    request = read(rb'{"stop":null,"tools":[ ],"schema":{"d":"\ud83d"},"text":"\ud83d"}')
    assert request.text == "\ufffd"
    assert msgspec.json.decode(request.schema) == {"d": "\ufffd"}
    assert (request.stop, request.tools) == ([], None)


def test_a_wrong_field_beside_half_a_character_is_named() -> None:
    with pytest.raises(BadRequest) as told:
        read(rb'{"text":"\ud83d","tools":"seven"}')
    assert told.value.param == "tools"


@pytest.mark.parametrize(
    "body", [b"", b"{", rb'{"text":"\ud83d"', rb'{"text":"\ud83', b'{"text":"\xff"}', b"[" * 5000]
)
def test_what_is_no_json_stays_refused(body: bytes) -> None:
    with pytest.raises(BadRequest) as told:
        read(body)
    assert told.value.param is None
