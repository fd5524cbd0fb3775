"""The upstream's JSON as tolerant Structs, and the two request bodies of a chat turn. Sans-IO.

Source: the protocol sheet, by section; every member may be missing, unknown ones are skipped. Only
members that somebody reads are declared: a frame costs 0.4 µs to decode (2026-11). What is rarely
looked at stays `Raw` until it is.

Does not know: what a failure means (failures.py), how frames become events (stream.py).
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

RAW_ABSENT = msgspec.Raw(b"")

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding foreign JSON may raise: wrong shape or no JSON, no UTF-8, nested beyond reason."""
ChatType = Literal["t2t", "search", "deep_research"]


# -- section 6: frames of the text stream


class Delta(msgspec.Struct):
    """6.1–6.3. `name` is set on results of the server's own tools, found in `extra`."""

    content: str | None = None
    phase: str | None = None
    status: str | None = None
    name: str | None = None
    function_call: msgspec.Raw = RAW_ABSENT
    extra: msgspec.Raw = RAW_ABSENT


class Choice(msgspec.Struct):
    delta: Delta | None = None


class Frame(msgspec.Struct, rename={"created": "response.created"}):
    """One `data:` payload: a delta, an announcement, or a failure in one of three forms (7)."""

    choices: list[Choice] | None = None
    response_id: str | None = None
    usage: msgspec.Raw = RAW_ABSENT
    created: msgspec.Raw = RAW_ABSENT
    error: msgspec.Raw = RAW_ABSENT
    success: bool | None = None
    ret: msgspec.Raw = RAW_ABSENT


class Created(msgspec.Struct):
    """6.1: `{"chat_id","parent_id","response_id","response_index":"0"}`, one per candidate."""

    chat_id: str | None = None
    response_id: str | None = None
    response_index: str | int | None = None


class FunctionCall(msgspec.Struct):
    """6.3: `arguments` is JSON text, `{"queries": [...]}` for a web search."""

    name: str | None = None
    arguments: str | None = None


class SearchArguments(msgspec.Struct):
    queries: list[str] | None = None


class Paragraphs(msgspec.Struct):
    """6.2: an array of strings that grows from frame to frame."""

    content: list[str] | None = None


class SearchResult(msgspec.Struct):
    """6.3: each may lack any member."""

    title: str | None = None
    url: str | None = None
    snippet: str | None = None
    hostname: str | None = None
    date: str | None = None


class Picture(msgspec.Struct):
    image: str | None = None


class Extra(msgspec.Struct):
    """6.2, 6.3: reasoning summaries, search results, pictures by the server's own tool."""

    summary_title: Paragraphs | None = None
    summary_thought: Paragraphs | None = None
    web_search_info: list[SearchResult] | None = None
    image_list: list[Picture] | None = None


class OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class FrameUsage(msgspec.Struct):
    """6.1: cumulative, two families of names, both may be missing."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    output_tokens_details: OutputDetails | None = None
    prompt_tokens_details: PromptDetails | None = None


decode_frame = msgspec.json.Decoder(Frame).decode
decode_created = msgspec.json.Decoder(Created).decode
decode_function_call = msgspec.json.Decoder(FunctionCall).decode
decode_search_arguments = msgspec.json.Decoder(SearchArguments).decode
decode_extra = msgspec.json.Decoder(Extra).decode
decode_frame_usage = msgspec.json.Decoder(FrameUsage).decode


# -- section 1 and 15.1: sign-in


class TokenHolder(msgspec.Struct):
    """`data` of a v2 sign-in; the token may also come in a cookie only."""

    token: str | None = None
    access_token: str | None = None
    role: str | None = None


class SignInAnswer(msgspec.Struct):
    """v1: flat. v2: an envelope around `TokenHolder`."""

    success: bool | None = None
    token: str | None = None
    access_token: str | None = None
    role: str | None = None
    data: TokenHolder | None = None


class TokenPayload(msgspec.Struct):
    """1: the middle part of the JWT. `exp` in seconds since the epoch."""

    exp: float | None = None


class Profile(msgspec.Struct):
    """15.1: `GET /api/v1/auths/`; `role: "user"` = good, `pending` = not activated."""

    id: str | None = None
    email: str | None = None
    role: str | None = None


decode_sign_in = msgspec.json.Decoder(SignInAnswer).decode
decode_token_payload = msgspec.json.Decoder(TokenPayload).decode
decode_profile = msgspec.json.Decoder(Profile).decode


def sign_in_body(email: str, password_sha256: str) -> bytes:
    """1: the password goes as lower-case hex of its SHA-256."""
    return msgspec.json.encode({"email": email, "password": password_sha256})


# -- section 3: models


class ModelMeta(msgspec.Struct):
    """3: `abilities` are numbers 0/1/2/3 …, `chat_type` lists what the model can be asked for."""

    description: str | None = None
    short_description: str | None = None
    capabilities: dict[str, Any] | None = None  # Any: booleans today, nobody promised them
    abilities: dict[str, Any] | None = None  # Any: the same
    chat_type: list[str] | None = None
    max_context_length: int | None = None
    max_generation_length: int | None = None
    max_thinking_generation_length: int | None = None
    modality: list[str] | None = None


class ModelInfo(msgspec.Struct):
    is_active: bool | None = None
    meta: ModelMeta | None = None


class Model(msgspec.Struct):
    """One entry of the model list; `id` is the upstream id, `name` the display name."""

    id: str | None = None
    name: str | None = None
    object: str | None = None
    owned_by: str | None = None
    info: ModelInfo | None = None


class _Models(msgspec.Struct):
    data: list[msgspec.Raw] | None = None


class _WrappedModels(msgspec.Struct):
    data: _Models | None = None


def decode_models(body: bytes) -> list[Model] | None:
    """The entries of a plain or wrapped list (3), without those that have no id or another shape.

    None: the body is no model list.
    """
    entries: list[msgspec.Raw] | None = None
    try:
        entries = msgspec.json.decode(body, type=_Models).data
    except UNREADABLE:
        try:
            wrapped = msgspec.json.decode(body, type=_WrappedModels).data
        except UNREADABLE:
            return None
        entries = wrapped.data if wrapped else None
    if entries is None:
        return None
    models = []
    for entry in entries:
        try:
            model = msgspec.json.decode(entry, type=Model)
        except UNREADABLE:
            continue
        if model.id:
            models.append(model)
    return models


# -- section 4: chats


class ChatData(msgspec.Struct):
    id: str | None = None


class ChatAnswer(msgspec.Struct):
    """4: no `data.id` means failure, whatever the HTTP status."""

    success: bool | None = None
    data: ChatData | None = None


class Yes(msgspec.Struct):
    """The envelope of an answer that holds nothing else."""

    success: bool | None = None


decode_chat = msgspec.json.Decoder(ChatAnswer).decode
decode_yes = msgspec.json.Decoder(Yes).decode


class _NewChat(msgspec.Struct):
    title: str
    models: tuple[str]
    chat_mode: str
    chat_type: str
    timestamp: int


def new_chat_body(*, model: str, chat_type: str, now_ms: int) -> bytes:
    """4. `chat_mode: "local"` makes a chat that the account's list never shows (15.2)."""
    return _encode(_NewChat("New Chat", (model,), "local", chat_type, now_ms))


# -- section 5: generation request


class _Meta(msgspec.Struct, rename="camel"):
    sub_chat_type: str


class _RequestExtra(msgspec.Struct):
    meta: _Meta


class _Features(msgspec.Struct):
    """`output_schema` must be `phase`, else frames carry no phase (5)."""

    thinking_enabled: bool
    auto_thinking: bool
    thinking_mode: str
    auto_search: bool
    thinking_budget: int | msgspec.UnsetType
    output_schema: str = "phase"
    research_mode: str = "normal"
    thinking_format: str = "detail"


_THINKING_MODES = {None: "Auto", True: "Thinking", False: "Fast"}


class _RequestMessage(
    msgspec.Struct, rename={"parent_id": "parentId", "children_ids": "childrenIds"}
):
    fid: str
    content: str
    timestamp: int
    models: tuple[str]
    chat_type: str
    sub_chat_type: str
    extra: _RequestExtra
    feature_config: _Features
    parent_id: None = None
    children_ids: tuple[()] = ()
    role: str = "user"
    user_action: str = "chat"
    files: tuple[()] = ()


class _Generation(msgspec.Struct):
    chat_id: str
    model: str
    messages: tuple[_RequestMessage]
    timestamp: int
    stream: bool = True
    version: str = "2.1"
    incremental_output: bool = True
    chat_mode: str = "local"
    parent_id: None = None


def completion_body(
    *,
    chat_id: str,
    model: str,
    content: str,
    chat_type: ChatType,
    thinking_enabled: bool | None,
    thinking_budget: int | None,
    now: int,
    fid: str,
) -> bytes:
    """5: one user message in a fresh chat. `now` in seconds; `fid` a new UUID.

    `thinking_enabled` None leaves it to the model, as the site does. A plain turn never searches on
    its own (`auto_search`): the caller chose the variant.
    """
    features = _Features(
        thinking_enabled=bool(thinking_enabled),
        auto_thinking=thinking_enabled is None,
        thinking_mode=_THINKING_MODES[thinking_enabled],
        auto_search=chat_type == "search",
        thinking_budget=msgspec.UNSET if thinking_budget is None else thinking_budget,
    )
    message = _RequestMessage(
        fid=fid,
        content=content,
        timestamp=now,
        models=(model,),
        chat_type=chat_type,
        sub_chat_type=chat_type,
        extra=_RequestExtra(_Meta(chat_type)),
        feature_config=features,
    )
    return _encode(_Generation(chat_id, model, (message,), now))


def stop_body(chat_id: str, response_id: str | None) -> bytes:
    """15.2: ends a generation."""
    body = {"chat_id": chat_id}
    if response_id:
        body["response_id"] = response_id
    return _encode(body)


_encode = msgspec.json.Encoder().encode


# -- section 7 and 15.4: failures


class Failure(msgspec.Struct, frozen=True):
    """What a failing body says, gathered from every form it may have.

    `codes`: code-like words as they stand. `text`: everything said in prose. `hours`: `data.num`.
    """

    codes: tuple[str, ...] = ()
    text: str = ""
    hours: float | None = None


def read_failure(body: bytes) -> Failure | None:
    """Gather code, text and hours from a JSON body; None when it is no JSON object.

    Forms (7, 11, 15.1):
        {"success": false, "data": {"code", "details", "num", "template"}}
        {"error": {"code", "details" | "message", "type"}}   {"error": "text"}
        {"detail": "text"}   {"ret": ["CODE", "CODE::text"]}   {"code", "message"}
    """
    try:
        decoded = msgspec.json.decode(body)
    except UNREADABLE:
        return None
    if not isinstance(decoded, dict):
        return None
    codes: list[str] = []
    texts: list[str] = []
    hours: float | None = None
    for part in (decoded, decoded.get("data"), decoded.get("error")):
        if isinstance(part, str):
            texts.append(part)
        if not isinstance(part, Mapping):
            continue
        codes += [str(part[name]) for name in _CODE_MEMBERS if _said(part.get(name))]
        texts += [_prose(part[name]) for name in _TEXT_MEMBERS if part.get(name)]
        number = part.get("num")
        if isinstance(number, int | float) and not isinstance(number, bool) and number > 0:
            hours = float(number)
    ret = decoded.get("ret")
    if isinstance(ret, list):
        codes += [str(entry) for entry in ret]
    text = " ".join(texts)
    if hours is not None:
        text = text.replace("{{num}}", f"{hours:g}")  # what `template` leaves open
    return Failure(tuple(codes), text, hours)


_CODE_MEMBERS = ("code", "type", "status")
_TEXT_MEMBERS = ("details", "detail", "message", "msg", "error_description", "template", "url")


def _said(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and bool(value)


def _prose(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
