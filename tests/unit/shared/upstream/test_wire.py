"""What we send is what section 5 shows; what we read may lack anything."""

import json

import pytest

from shared.errors import UpstreamProtocolError
from shared.upstream import wire
from shared.upstream.decoding import open_decoding

SENT = {
    "chat_id": "c1",
    "model": "qwen3.6-plus",
    "content": 'quotes " and 世界\n\u2028',
    "chat_type": "t2t",
    "thinking_enabled": None,
    "thinking_budget": None,
    "now": 1795400000,
    "fid": "f1",
}


def body(**changes: object) -> dict[str, object]:
    decoded: dict[str, object] = json.loads(wire.completion_body(**{**SENT, **changes}))  # type: ignore[arg-type]  # of a test
    return decoded


def test_a_generation_request_is_that_of_section_5() -> None:
    assert body() == {
        "stream": True,
        "version": "2.1",
        "incremental_output": True,
        "chat_id": "c1",
        "chat_mode": "local",
        "model": "qwen3.6-plus",
        "parent_id": None,
        "messages": [
            {
                "fid": "f1",
                "parentId": None,
                "childrenIds": [],
                "role": "user",
                "content": SENT["content"],
                "user_action": "chat",
                "files": [],
                "timestamp": 1795400000,
                "models": ["qwen3.6-plus"],
                "chat_type": "t2t",
                "sub_chat_type": "t2t",
                "extra": {"meta": {"subChatType": "t2t"}},
                "feature_config": {
                    "output_schema": "phase",
                    "thinking_enabled": False,
                    "research_mode": "normal",
                    "auto_thinking": True,
                    "thinking_mode": "Auto",
                    "thinking_format": "detail",
                    "auto_search": False,
                },
            }
        ],
        "timestamp": 1795400000,
    }


@pytest.mark.parametrize(
    ("thinking_enabled", "told"),
    [
        (None, (False, True, "Auto")),
        (True, (True, False, "Thinking")),
        (False, (False, False, "Fast")),
    ],
)
def test_thinking_is_the_models_choice_unless_somebody_chose(
    thinking_enabled: bool | None, told: tuple[bool, bool, str]
) -> None:
    [message] = body(thinking_enabled=thinking_enabled)["messages"]  # type: ignore[misc]  # JSON
    features = message["feature_config"]
    assert (
        features["thinking_enabled"],
        features["auto_thinking"],
        features["thinking_mode"],
    ) == told
    assert "thinking_budget" not in features


def test_a_budget_is_passed_on() -> None:
    [message] = body(thinking_enabled=True, thinking_budget=1000)["messages"]  # type: ignore[misc]  # JSON
    assert message["feature_config"]["thinking_budget"] == 1000


def test_a_plain_turn_never_searches_on_its_own_and_a_search_says_so_everywhere() -> None:
    [plain] = body()["messages"]  # type: ignore[misc]  # JSON
    [search] = body(chat_type="search")["messages"]  # type: ignore[misc]  # JSON
    assert plain["feature_config"]["auto_search"] is False
    assert search["feature_config"]["auto_search"] is True
    assert search["chat_type"] == search["sub_chat_type"] == "search"
    assert search["extra"] == {"meta": {"subChatType": "search"}}


def test_a_new_chat_is_temporary_and_counts_in_milliseconds() -> None:
    told = json.loads(wire.new_chat_body(model="m", chat_type="t2t", now_ms=1795400000123))
    assert told == {
        "title": "New Chat",
        "models": ["m"],
        "chat_mode": "local",
        "chat_type": "t2t",
        "timestamp": 1795400000123,
    }


def test_a_sign_in_names_the_account_and_the_hash() -> None:
    told = json.loads(wire.sign_in_body("a@example.com", "0" * 64))
    assert told == {"email": "a@example.com", "password": "0" * 64}


def test_a_stop_names_the_response_when_it_is_known() -> None:
    assert json.loads(wire.stop_body("c", "r")) == {"chat_id": "c", "response_id": "r"}
    assert json.loads(wire.stop_body("c", None)) == {"chat_id": "c"}


MODEL = {
    "id": "m1",
    "name": "M-1",
    "info": {"meta": {"abilities": {"thinking": 2}, "chat_type": []}},
}


@pytest.mark.parametrize(
    "answer",
    [
        {"data": [MODEL]},
        {"success": True, "data": {"data": [MODEL]}},
        {"data": [MODEL, {"name": "without id"}, {"id": 5}, "odd", None, {"id": ""}]},
    ],
)
def test_models_are_read_plain_and_wrapped_without_what_is_none(answer: object) -> None:
    models = wire.decode_models(json.dumps(answer).encode())
    assert models is not None
    [model] = models
    assert (model.id, model.name) == ("m1", "M-1")
    assert model.info is not None
    assert model.info.meta is not None
    assert model.info.meta.abilities == {"thinking": 2}


@pytest.mark.parametrize(
    "missing", [{"id": "m"}, {"id": "m", "info": None}, {"id": "m", "info": {}}]
)
def test_any_level_of_a_model_may_be_missing(missing: object) -> None:
    assert wire.decode_models(json.dumps({"data": [missing]}).encode())


@pytest.mark.parametrize(
    "answer",
    [b"", b"{}", b"[]", b"<html>", b'{"data": 5}', b'{"data": {}}', b'{"data": null}', b"\xff"],
)
def test_what_is_no_model_list_is_none(answer: bytes) -> None:
    assert wire.decode_models(answer) is None


def test_an_empty_model_list_is_a_model_list() -> None:
    assert wire.decode_models(b'{"data": []}') == []


def pack(plain: bytes, wbits: int) -> bytes:
    import zlib

    packer = zlib.compressobj(wbits=wbits)
    return packer.compress(plain) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "wbits"),
    [("gzip", 31), ("X-GZip", 31), (" gzip ", 31), ("deflate", 15), ("deflate", -15)],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_packed_body_is_unpacked_however_it_is_cut(encoding: str, wbits: int, size: int) -> None:
    plain = "data: Grüße\n\n".encode() * 200
    packed = pack(plain, wbits)
    decoding = open_decoding(encoding)
    assert decoding is not None
    pieces = [packed[at : at + size] for at in range(0, len(packed), size)]
    assert b"".join(map(decoding.feed, pieces)) == plain


@pytest.mark.parametrize("encoding", ["", "identity", "Identity"])
def test_what_is_not_packed_is_left_alone(encoding: str) -> None:
    assert open_decoding(encoding) is None


def test_a_packing_nobody_asked_for_is_nonsense() -> None:
    with pytest.raises(UpstreamProtocolError):
        open_decoding("br")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_that_is_not_packed_as_it_says_is_nonsense(encoding: str) -> None:
    decoding = open_decoding(encoding)
    assert decoding is not None
    with pytest.raises(UpstreamProtocolError):
        decoding.feed(b"data: plain after all\n\n" * 10)
