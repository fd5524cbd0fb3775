"""Frames of the upstream's text stream: payloads, their spelling on the wire, and the named situations.

Pure: no clock, no randomness, no I/O. The golden files are written from `SITUATIONS`, and the running
simulator plays the same builders, so what the decoder is tested on is what the simulator says.
Protocol sheet: sections 6 (frames), 7 (errors in a stream), 15.3 (oddities).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import msgspec

encode = msgspec.json.encode

Payload = dict[
    str, Any
]  # Any: a JSON object as the upstream writes it; its shapes are this module's subject
UsageFamily = Literal["input", "prompt", "details", "none"]


class Ids(msgspec.Struct, frozen=True):
    """The three ids every `response.created` frame names (6.1)."""

    chat_id: str = "11111111-1111-4111-8111-111111111111"
    parent_id: str = "22222222-2222-4222-8222-222222222222"
    response_id: str = "33333333-3333-4333-8333-333333333333"


class Style(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an event is spelled; every field is an oddity of section 6 or 15.3."""

    eol: Literal["lf", "crlf", "cr"] = "lf"
    bom: bool = False
    blank_before_eol: bool = False  # a blank before the line end of the first event
    no_blank: bool = False  # `data:{...}`
    multi_data: bool = False  # one event over several `data:` lines
    comments: bool = False  # comment, `event:`, `id:` and `retry:` lines

    @property
    def line_end(self) -> bytes:
        return {"lf": b"\n", "crlf": b"\r\n", "cr": b"\r"}[self.eol]


PLAIN = Style()
TIMESTAMP = 1795400001


# -- payloads


def created(ids: Ids, *, index: int | None = 0) -> Payload:
    """`{"response.created": {"chat_id", "parent_id", "response_id", "response_index": "0"}}` (6.1)."""
    inner = {"chat_id": ids.chat_id, "parent_id": ids.parent_id, "response_id": ids.response_id}
    return {"response.created": inner if index is None else inner | {"response_index": str(index)}}


def keep_alive(ids: Ids, *, timestamp: int = TIMESTAMP) -> Payload:
    """`{"response.info": {"action": "keep_alive", ...}}` (6.1, 8.1)."""
    inner = {"action": "keep_alive", "chat_id": ids.chat_id, "response_id": ids.response_id}
    return {"response.info": inner | {"timestamp": timestamp}}


def delta(
    ids: Ids,
    content: str,
    *,
    phase: str | None = "answer",
    status: str = "typing",
    usage: Payload | None = None,
    role: str = "assistant",
    timestamp: int | None = None,
    **more: Any,  # Any: further delta members (`extra`, `name`, `function_call` …)
) -> Payload:
    """`{"choices": [{"delta": {"role", "content", "phase", "status", …}}], "response_id", "usage"}` (6.1)."""
    inner: Payload = {"role": role, "content": content}
    if phase is not None:
        inner["phase"] = phase
    inner |= {"status": status, **more}
    payload: Payload = {"choices": [{"delta": inner}], "response_id": ids.response_id}
    if usage is not None:
        payload["usage"] = usage
    if timestamp is not None:
        payload["timestamp"] = timestamp
    return payload


def finished(ids: Ids, *, phase: str | None = "answer", **more: Any) -> Payload:
    """The end of a phase: empty content and `status: "finished"` (6.1)."""
    return delta(ids, "", phase=phase, status="finished", **more)


def usage(family: UsageFamily, *, sent: int, received: int, reasoning: int = 0) -> Payload | None:
    """Cumulative usage in one of the families of 6.1; `None` when it is missing altogether."""
    total = sent + received
    match family:
        case "none":
            return None
        case "prompt":
            return {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": total}
        case "input":
            return {"input_tokens": sent, "output_tokens": received, "total_tokens": total}
        case "details":
            return {
                "input_tokens": sent,
                "output_tokens": received,
                "total_tokens": total,
                "output_tokens_details": {"reasoning_tokens": reasoning},
                "prompt_tokens_details": {"cached_tokens": sent // 2},
            }


def answer(
    ids: Ids,
    pieces: Iterable[str],
    *,
    family: UsageFamily = "input",
    sent: int = 812,
    spent: int = 0,
    phase: str | None = "answer",
    timestamp: int | None = TIMESTAMP,
    end: bool = True,
) -> Iterator[Payload]:
    """Typing frames for `pieces`, then the finished frame (6.1)."""
    for count, piece in enumerate(pieces, start=spent + 1):
        told = usage(family, sent=sent, received=count, reasoning=spent)
        yield delta(ids, piece, phase=phase, usage=told, timestamp=timestamp)
    if end:
        yield finished(ids, phase=phase)


def thinking(
    ids: Ids,
    pieces: Iterable[str],
    *,
    phase: str = "think",
    family: UsageFamily = "input",
    sent: int = 812,
) -> Iterator[Payload]:
    """Reasoning as text, closed by a finished frame of its own (6.2, `thinking_format: "detail"`)."""
    for count, piece in enumerate(pieces, start=1):
        told = usage(family, sent=sent, received=count, reasoning=count)
        yield delta(ids, piece, phase=phase, usage=told, timestamp=TIMESTAMP)
    yield finished(ids, phase=phase)


def thinking_summary(ids: Ids, entries: list[tuple[str, str]]) -> Iterator[Payload]:
    """Reasoning as growing arrays of titles and thoughts, with empty content (6.2, `"summary"`)."""
    for count in range(1, len(entries) + 1):
        shown = entries[:count]
        extra = {
            "summary_title": {"content": [title for title, _ in shown]},
            "summary_thought": {"content": [thought for _, thought in shown]},
        }
        status = "finished" if count == len(entries) else "typing"
        yield delta(ids, "", phase="thinking_summary", status=status, extra=extra)


def web_search(ids: Ids, queries: list[str], results: list[Payload]) -> Iterator[Payload]:
    """The server's own search: the call, then the result frame named `web_search` (6.3)."""
    arguments = encode({"queries": queries}).decode()
    call = {"name": "web_search", "arguments": arguments}
    yield delta(ids, "", phase="web_search", function_call=call, function_id="f1")
    yield finished(ids, phase="web_search") | {
        "choices": [
            {
                "delta": {
                    "role": "function",
                    "name": "web_search",
                    "content": "",
                    "phase": "web_search",
                    "status": "finished",
                    "extra": {"web_search_info": results},
                }
            }
        ]
    }


def image_in_chat(ids: Ids, urls: list[str], *, phase: str = "image_gen_tool") -> Iterator[Payload]:
    """Pictures by the server's own image tool inside a text chat: `delta.extra.image_list` (6.3)."""
    images = [{"image": url} for url in urls]
    yield delta(ids, "", phase=phase, extra={"image_list": images})
    yield delta(ids, "", phase=phase, status="finished", extra={"image_list": images})


def picture(ids: Ids, url: str, *, width: int = 1664, height: int = 928) -> Payload:
    """One generated picture: the bare address as content (8.1)."""
    told = {"width": width, "height": height, "image_count": 1}
    extra = {"output_image_hw": [[height, width]]}
    return delta(ids, url, phase="image_gen", extra=extra, usage=told)


def envelope(
    code: str, details: str = "", *, num: int | None = None, template: str | None = None
) -> Payload:
    """`{"success": false, "request_id", "data": {"code", "num", "details", "template"}}` (7)."""
    data: Payload = {"code": code}
    if num is not None:
        data["num"] = num
    data["details"] = details
    if template is not None:
        data["template"] = template
    return {"success": False, "request_id": "44444444-4444-4444-8444-444444444444", "data": data}


# -- spelling


def spell(payload: Payload | bytes, style: Style = PLAIN, *, first: bool = False) -> bytes:
    """One server-sent event on the wire, as `style` wants it (6, 15.3)."""
    body = payload if isinstance(payload, bytes) else encode(payload)
    end = style.line_end
    label = b"data:" if style.no_blank else b"data: "
    lines = [body]
    if style.multi_data and body.startswith(b"{"):
        lines = msgspec.json.format(body, indent=1).split(b"\n")
    written = [label + line for line in lines]
    if style.blank_before_eol and first:
        written[-1] += b" "
    if style.comments:
        written = [b": keep-alive", b"event: message", b"id: 7", b"retry: 3000", *written]
    prefix = b"\xef\xbb\xbf" if style.bom and first else b""
    return prefix + end.join(written) + end + end


def spell_all(payloads: Iterable[Payload | bytes], style: Style = PLAIN) -> list[bytes]:
    """Every event of a stream; the first one carries the oddities that only the first can have."""
    return [spell(payload, style, first=index == 0) for index, payload in enumerate(payloads)]


def pieces_of(text: str, count: int) -> list[str]:
    """Cut `text` into `count` pieces of about equal length (fewer when the text is shorter)."""
    if not text or count <= 0:
        return [text] if text else []
    count = min(count, len(text))
    size, rest = divmod(len(text), count)
    out, at = [], 0
    for index in range(count):
        step = size + (1 if index < rest else 0)
        out.append(text[at : at + step])
        at += step
    return out


# -- situations: one per shape or oddity of sections 6, 7 and 15.3

I0 = Ids()
I1 = Ids(response_id="55555555-5555-4555-8555-555555555555")
HELLO = ["Hel", "lo", ", wor", "ld", "!"]
SOURCES: list[Payload] = [
    {
        "title": "Fjords of Norway",
        "url": "https://example.org/fjords",
        "hostname": "example.org",
        "snippet": "A fjord is a long, narrow inlet.",
        "date": "2026-05-01",
    },
    {"title": "Oslo", "url": "https://example.org/oslo"},
    {"url": "https://example.net/bare"},
]
PICTURE = "https://cdn.example/output/u1/t2i/r1/1.png?key=made-up"


def _stream(payloads: Iterable[Payload | bytes], style: Style = PLAIN) -> bytes:
    return b"".join(spell_all(payloads, style))


def _hello(style: Style = PLAIN) -> bytes:
    return _stream([created(I0), *answer(I0, HELLO)], style)


def _plain() -> bytes:
    return _hello()


def _plain_unicode() -> bytes:
    return _stream([created(I0), *answer(I0, ["Grüße, ", "世界", " 🙂 ", "— done."])])


def _repeated_text() -> bytes:
    return _stream([created(I0), *answer(I0, ["ha", "ha", "ha", "", "haha"])])


def _empty_contents() -> bytes:
    return _stream([created(I0), *answer(I0, ["", "Hel", "", "lo", ""])])


def _text_in_finished_frame() -> bytes:
    last = delta(I0, "lo", status="finished")
    return _stream([created(I0), *answer(I0, ["Hel"], end=False), last])


def _think_then_answer() -> bytes:
    thought = thinking(I0, ["The user says ", "hello; ", "I answer."])
    return _stream([created(I0), *thought, *answer(I0, HELLO, spent=3)])


def _think_phase(name: str) -> Callable[[], bytes]:
    def build() -> bytes:
        thought = thinking(I0, ["Some ", "thought."], phase=name)
        return _stream([created(I0), *thought, *answer(I0, HELLO, spent=2)])

    return build


def _think_without_finish() -> bytes:
    thought = list(thinking(I0, ["No frame ", "closes this."]))[:-1]
    return _stream([created(I0), *thought, *answer(I0, HELLO, spent=2)])


def _thinking_summary() -> bytes:
    entries = [
        ("Reading the question", "The user greets."),
        ("Choosing a tone", "A short greeting fits."),
        ("Writing", "Now the answer."),
    ]
    return _stream([created(I0), *thinking_summary(I0, entries), *answer(I0, HELLO)])


def _web_search() -> bytes:
    found = web_search(I0, ["fjords of Norway"], SOURCES)
    return _stream([created(I0), *found, *answer(I0, ["Fjords are inlets ", "[[1]]", "[[2]]."])])


def _web_search_twice() -> bytes:
    one = web_search(I0, ["fjords"], SOURCES[:1])
    two = web_search(I0, ["Oslo weather"], SOURCES[1:])
    thought = thinking(I0, ["Two searches were needed."])
    return _stream([created(I0), *one, *two, *thought, *answer(I0, ["See [[1]] and [[2]]."])])


def _image_in_chat() -> bytes:
    pictures = image_in_chat(I0, [PICTURE])
    return _stream([created(I0), *pictures, *answer(I0, ["Here is ", "your fox."])])


def _image_during_reasoning() -> bytes:
    thought = list(thinking(I0, ["I draw ", "a fox."]))
    shown = delta(I0, "", phase="think", extra={"image_list": [{"image": PICTURE}]})
    both = [{"image": PICTURE}, {"image": PICTURE.replace("1.png", "2.png")}]
    again = delta(I0, "", phase="image_gen", status="finished", extra={"image_list": both})
    return _stream(
        [created(I0), thought[0], shown, *thought[1:], again, *answer(I0, ["Two foxes."])]
    )


def _two_candidates() -> bytes:
    first, second = list(answer(I0, HELLO)), list(answer(I1, ["An", "other", " answer", "."]))
    mixed: list[Payload] = [created(I0), created(I1, index=1)]
    for index in range(max(len(first), len(second))):
        mixed += second[index : index + 1] + first[index : index + 1]
    return _stream(mixed)


def _two_candidates_second_finishes_first() -> bytes:
    second = list(answer(I1, ["Short."]))
    return _stream([created(I0), created(I1, index=1), *second, *answer(I0, HELLO)])


def _no_response_ids() -> bytes:
    frames = [dict(frame) for frame in answer(I0, HELLO)]
    for frame in frames:
        frame.pop("response_id")
    return _stream(frames)


def _usage_of(family: UsageFamily) -> Callable[[], bytes]:
    def build() -> bytes:
        return _stream([created(I0), *answer(I0, HELLO, family=family)])

    return build


def _usage_after_finish() -> bytes:
    late: Payload = {"choices": [], "response_id": I0.response_id}
    late["usage"] = usage("input", sent=812, received=9)
    return _stream([created(I0), *answer(I0, HELLO, family="none"), late])


def _keep_alive_frames() -> bytes:
    frames: list[Payload] = [created(I0)]
    for frame in answer(I0, HELLO):
        frames += [keep_alive(I0), frame]
    return _stream(frames)


def _frames_to_skip() -> bytes:
    hello = list(answer(I0, HELLO))
    skipped: list[Payload] = [
        {"choices": [], "response_id": I0.response_id},
        {"choices": [{"index": 0}]},
        {"response.something_new": {"a": 1}},
        {"choices": [{"delta": {}}]},
        {"choices": None},
        {"choices": [{"delta": None}]},
    ]
    return _stream([created(I0), hello[0], *skipped, *hello[1:]])


def _unknown_fields() -> bytes:
    frames = [frame | {"trace": {"x": [1, 2]}, "v": 3} for frame in answer(I0, HELLO)]
    frames[0]["choices"][0]["delta"]["mood"] = None
    return _stream([created(I0), *frames])


def _without_created() -> bytes:
    return _stream(answer(I0, HELLO))


def _line_separator_in_json() -> bytes:
    pieces = ["one\u2028two", "\u0085three", "\u2029four", "\x0b\x0cfive"]
    return _stream([created(I0), *answer(I0, pieces)])


HIGH, LOW = (
    "\ue0d8",
    "\ue0d9",
)  # private characters that stand for the lone halves until they are written


def mark_halves(text: str) -> str:
    """`‹HIGH›` and `‹LOW›` of a script as one character each, so that no cut falls inside them."""
    return text.replace("‹HIGH›", HIGH).replace("‹LOW›", LOW)


def lone_surrogates(payloads: Iterable[Payload]) -> Iterator[Payload | bytes]:
    """Write the marked halves as lone escapes, which no strict JSON writer would emit (15.3)."""
    for payload in payloads:
        body = encode(payload)
        yield body.replace(HIGH.encode(), b"\\uD83D").replace(LOW.encode(), b"\\uDE42")


def _lone_surrogates() -> bytes:
    pieces = [f"smile {HIGH}", f"{LOW} done", f" and {HIGH}{LOW} whole"]
    return _stream([created(I0), *lone_surrogates(answer(I0, pieces))])


def _lone_surrogate_unpaired() -> bytes:
    return _stream([created(I0), *lone_surrogates(answer(I0, [f"broken {HIGH}", " never paired"]))])


def _done_marker() -> bytes:
    return _hello() + spell(b"[DONE]")


def _done_without_finish() -> bytes:
    return _stream([created(I0), *answer(I0, HELLO, end=False), b"[DONE]"])


def _think_tag_in_answer() -> bytes:
    pieces = ["<thi", "nk>I might call ", "a tool</th", "ink>", "Hello", "!"]
    return _stream([created(I0), *answer(I0, pieces)])


def _truncated() -> bytes:
    return _stream([created(I0), *answer(I0, HELLO, end=False)])


def _truncated_mid_frame() -> bytes:
    whole = _stream([created(I0), *answer(I0, ["Grü", "ße", " 世界"], end=False)])
    return whole[: whole.rindex("界".encode()) + 1]


def _truncated_while_thinking() -> bytes:
    return _stream([created(I0), *thinking(I0, ["Half a ", "thought"])])


def _finished_last_event_without_blank_line() -> bytes:
    return _hello().rstrip(b"\n")


def _frame_without_phase() -> bytes:
    return _stream([created(I0), *answer(I0, HELLO, phase=None)])


def _other_phases() -> bytes:
    names = ["ResearchNotice", "ResearchPlanning", "ResearchSearching", "ResearchReading"]
    names += ["Writing", "tool_call", "image_edit_tool", "image_gen_tool", "code_interpreter"]
    frames: list[Payload] = [created(I0)]
    for name in names:
        frames += [delta(I0, f"({name})", phase=name), finished(I0, phase=name)]
    return _stream([*frames, *answer(I0, HELLO)])


def _apology() -> bytes:
    text = ["Sorry, we are experiencing ", "high demand. ", "Please try again later."]
    return _stream([created(I0), *answer(I0, text)])


def _tool_does_not_exist() -> bytes:
    return _stream([created(I0), *answer(I0, ["Tool get_weather ", "does not exists."])])


def _empty_answer() -> bytes:
    return _stream([created(I0), finished(I0)])


def _only_created() -> bytes:
    return _stream([created(I0)])


def _limit() -> Payload:
    text = "You have reached the upper limit for today's usage."
    return envelope("RateLimited", text, num=6, template="You can try again in {{num}} hours.")


def _error_after_content(payload: Payload) -> Callable[[], bytes]:
    def build() -> bytes:
        return _stream([created(I0), *answer(I0, HELLO[:2], end=False), payload])

    return build


def _error_first(payload: Payload) -> Callable[[], bytes]:
    def build() -> bytes:
        return _stream([payload])

    return build


def _json(payload: Payload) -> Callable[[], bytes]:
    def build() -> bytes:
        return encode(payload)

    return build


def punish() -> Payload:
    """The firewall's JSON challenge, with HTTP status 200 (7)."""
    return {
        "ret": ["FAIL_SYS_USER_VALIDATE", "RGV587_ERROR::SM::please verify"],
        "data": {
            "url": "https://chat.qwen.ai:443//api/v2/chat/completions/_____tmd_____/punish?x5secdata=made-up"
        },
    }


def firewall_page() -> bytes:
    """The firewall's HTML challenge, with HTTP status 200 (7, 15.4)."""
    return (
        b'<!doctype html><html><head><meta charset="utf-8"><title>Verification</title>'
        b'<meta name="aliyun_waf_aa" content="made-up"></head><body>'
        b'<div id="captcha">Please slide to verify</div></body></html>\n'
    )


def _tool_call_text() -> bytes:
    pieces = ["Let me look.\n<tool", '_call>\n{"name": "get_weath', 'er", "arguments": {"city": ']
    return _stream([created(I0), *answer(I0, [*pieces, '"Oslo"}}\n</tool_c', "all>"])])


def _tool_call_xml() -> bytes:
    pieces = ["<tool_call>\n<function=get_weather>\n<para", "meter=city>\nOslo\n</parameter>\n"]
    return _stream([created(I0), *answer(I0, [*pieces, "</function>\n</tool_call>"])])


def _tool_call_unclosed() -> bytes:
    return _stream([created(I0), *answer(I0, ['<tool_call>\n{"name": "get_weather", ', '"argum'])])


def _everything() -> bytes:
    return _stream(
        [
            created(I0),
            keep_alive(I0),
            *web_search(I0, ["fjords"], SOURCES),
            *thinking(I0, ["Sources found. ", "Now a picture."], family="details"),
            *image_in_chat(I0, [PICTURE]),
            keep_alive(I0),
            *answer(I0, ["Fjords ", "[[1]] ", "are inlets."], family="details", spent=2),
        ]
    )


_BAD = envelope("Bad_Request", "Bad_Request: Internal error, please try again.")
_ERROR: Payload = {"error": {"code": "internal_error", "details": "The generator failed."}}
_TEXT: Payload = {"error": "The generator failed."}
_REFUSED = envelope("data_inspection_failed", "Input data may contain inappropriate content.")

SITUATIONS: dict[str, Callable[[], bytes]] = {
    "plain.sse": _plain,
    "plain_unicode.sse": _plain_unicode,
    "repeated_text.sse": _repeated_text,
    "empty_contents.sse": _empty_contents,
    "text_in_finished_frame.sse": _text_in_finished_frame,
    "without_created.sse": _without_created,
    "no_response_ids.sse": _no_response_ids,
    "unknown_fields.sse": _unknown_fields,
    "frames_to_skip.sse": _frames_to_skip,
    "think_then_answer.sse": _think_then_answer,
    "thinking_phase.sse": _think_phase("thinking"),
    "thought_phase.sse": _think_phase("thought"),
    "think_without_finish.sse": _think_without_finish,
    "thinking_summary.sse": _thinking_summary,
    "web_search.sse": _web_search,
    "web_search_twice.sse": _web_search_twice,
    "image_in_chat.sse": _image_in_chat,
    "image_during_reasoning.sse": _image_during_reasoning,
    "two_candidates.sse": _two_candidates,
    "two_candidates_second_finishes_first.sse": _two_candidates_second_finishes_first,
    "usage_prompt_family.sse": _usage_of("prompt"),
    "usage_details.sse": _usage_of("details"),
    "usage_missing.sse": _usage_of("none"),
    "usage_after_finish.sse": _usage_after_finish,
    "keep_alive_frames.sse": _keep_alive_frames,
    "crlf.sse": lambda: _hello(Style(eol="crlf")),
    "lone_cr.sse": lambda: _hello(Style(eol="cr")),
    "bom.sse": lambda: _hello(Style(bom=True)),
    "no_blank_after_colon.sse": lambda: _hello(Style(no_blank=True)),
    "multi_data_lines.sse": lambda: _hello(Style(multi_data=True)),
    "comments_and_ids.sse": lambda: _hello(Style(comments=True)),
    "blank_before_line_end.sse": lambda: _hello(Style(blank_before_eol=True)),
    "line_separator_in_json.sse": _line_separator_in_json,
    "lone_surrogates.sse": _lone_surrogates,
    "lone_surrogate_unpaired.sse": _lone_surrogate_unpaired,
    "done_marker.sse": _done_marker,
    "done_without_finish.sse": _done_without_finish,
    "think_tag_in_answer.sse": _think_tag_in_answer,
    "tool_call_text.sse": _tool_call_text,
    "tool_call_xml.sse": _tool_call_xml,
    "tool_call_unclosed.sse": _tool_call_unclosed,
    "tool_does_not_exist.sse": _tool_does_not_exist,
    "truncated.sse": _truncated,
    "truncated_mid_frame.sse": _truncated_mid_frame,
    "truncated_while_thinking.sse": _truncated_while_thinking,
    "last_event_without_blank_line.sse": _finished_last_event_without_blank_line,
    "frame_without_phase.sse": _frame_without_phase,
    "other_phases.sse": _other_phases,
    "apology.sse": _apology,
    "empty_answer.sse": _empty_answer,
    "only_created.sse": _only_created,
    "empty_body.sse": lambda: b"",
    "finished_then_open.sse": _hello,
    "finished_then_more.sse": lambda: _hello() + spell(keep_alive(I0)) + spell(keep_alive(I0)),
    "everything.sse": _everything,
    "error_envelope_first.json": _json(_limit()),
    "error_bad_request_internal.json": _json(_BAD),
    "error_unauthorized.json": _json(envelope("Unauthorized", "Token has expired.")),
    "error_chat_in_progress.json": _json(envelope("Bad_Request", "The chat is in progress!")),
    "error_envelope_first_frame.sse": _error_first(_limit()),
    "error_envelope_as_frame.sse": _error_after_content(_limit()),
    "error_object_frame.sse": _error_after_content(_ERROR),
    "error_string_frame.sse": _error_after_content(_TEXT),
    "error_object_first_frame.sse": _error_first(_ERROR),
    "error_moderation_frame.sse": _error_after_content(_REFUSED),
    "firewall_punish.json": _json(punish()),
    "firewall_punish_frame.sse": _error_first(punish()),
    "firewall_page.html": firewall_page,
    "nonsense.json": _json({"hello": "world"}),
}
"""Every situation by its golden file's name. `finished_then_open` differs from `plain` only in what the
connection does afterwards, which a file cannot hold: its reader must not wait for the end of the body."""
