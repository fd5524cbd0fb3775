"""What a text generation answers: from the request and the action to a list of events (sections 6, 15.3)."""

import re
from typing import Any

import msgspec

from tests.simulator import frames
from tests.simulator.frames import Ids, Payload, spell_all
from tests.simulator.script import Action, ScriptError, decode64

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "the",
    "lazy",
    "dog",
    "and",
    "runs",
    "along",
    "the",
    "river",
    "until",
    "it",
    "rains",
]
THOUGHTS = [
    ("Reading the request", "The caller wrote something; I look at what it asks for."),
    (
        "Choosing an answer",
        "No model is at work here, so a short description is the honest answer.",
    ),
    ("Checking the form", "Text, then the end: nothing else was scripted."),
    ("Writing", "Now the answer."),
]
RESEARCH = ["ResearchNotice", "ResearchPlanning", "ResearchSearching", "ResearchReading", "Writing"]
SHOWN_CHARACTERS = 160


class Facts(msgspec.Struct):
    """What the request said, as far as the answer depends on it."""

    ids: Ids
    prompt: str
    model_name: str
    chat_type: str = "t2t"
    thinking: bool = False
    thinking_format: str = "detail"
    phases: bool = True  # false without `output_schema: "phase"` (5)
    incremental: bool = True
    attachments: int = 0
    picture_urls: list[str] = []  # for `images`, served by the simulator
    prompt_tokens: int = 1
    timestamp: int = frames.TIMESTAMP


class Answer(msgspec.Struct):
    """The events as bytes in order, and what the chat remembers of them."""

    events: list[bytes]
    text: str = ""
    reasoning: str = ""


def build(facts: Facts, action: Action) -> Answer:
    """All events of one text answer."""
    if action.situation is not None:
        return Answer(_events_of(_situation(action.situation)))
    if action.raw64 is not None:
        return Answer([decode64(action.raw64)])
    ids = facts.ids
    payloads: list[Payload | bytes] = [frames.created(ids, index=0)]
    twin = msgspec.structs.replace(ids, response_id=ids.response_id[:-4] + "0002")
    if action.candidates > 1:
        payloads.append(frames.created(twin, index=1))
    payloads += _search(facts, action)
    reasoning, count, thought = _think(facts, action)
    payloads += thought
    if action.images and facts.picture_urls:
        payloads += frames.image_in_chat(ids, facts.picture_urls)
    pieces = _pieces(facts, action)
    text = list(_answer(facts, action, pieces, spent=count))
    payloads += _interleaved(text, twin) if action.candidates > 1 else text
    text_sent = "".join(pieces)
    if action.done:
        payloads.append(b"[DONE]")
    if not facts.phases:
        payloads = [_without_phase(payload) for payload in payloads]
    if frames.HIGH in text_sent or frames.LOW in text_sent:
        payloads = [_with_lone_surrogates(payload) for payload in payloads]
    return Answer(spell_all(payloads, action.wire_style), text_sent, reasoning)


def friendly_text(facts: Facts) -> str:
    """The answer when nothing is scripted: says who speaks and what was understood."""
    prompt = " ".join(facts.prompt.split())
    shown = prompt if len(prompt) <= SHOWN_CHARACTERS else "… " + prompt[-SHOWN_CHARACTERS:]
    lines = [
        f"Hello! This is the upstream simulator, answering as {facts.model_name}.",
        f"I received {len(facts.prompt)} characters of text, ending in: “{shown}”.",
    ]
    if facts.attachments:
        lines.append(f"{facts.attachments} attachment(s) came along.")
    if facts.chat_type == "search":
        lines.append("My search found three pages about it [[1]][[2]][[3]].")
    lines.append(
        "No model was asked, so take nothing here for knowledge. Everything is wired up correctly."
    )
    return " ".join(lines)


def _pieces(facts: Facts, action: Action) -> list[str]:
    text = action.text
    if text is None and action.frames is not None:
        return [WORDS[index % len(WORDS)] + " " for index in range(action.frames)]
    if text is None:
        return _by_words(friendly_text(facts), 24)
    text = frames.mark_halves(text)
    return frames.pieces_of(text, action.frames or max(1, min(24, len(text) // 4)))


def _by_words(text: str, count: int) -> list[str]:
    words = re.findall(r"\S+\s*", text)
    size = max(1, -(-len(words) // count))
    return ["".join(words[at : at + size]) for at in range(0, len(words), size)]


def _answer(facts: Facts, action: Action, pieces: list[str], *, spent: int) -> list[Payload]:
    shown = pieces
    if not facts.incremental:  # without it every frame repeats what came before (5)
        shown = ["".join(pieces[: index + 1]) for index in range(len(pieces))]
    out: list[Payload] = []
    if facts.chat_type == "deep_research":
        for phase in RESEARCH:
            out += [frames.delta(facts.ids, f"({phase})", phase=phase)]
            out += [frames.finished(facts.ids, phase=phase)]
    out += frames.answer(
        facts.ids,
        shown,
        family=action.usage,
        sent=facts.prompt_tokens,
        spent=spent,
        phase=action.phase,
        timestamp=facts.timestamp,
        end=action.finish,
    )
    return out


def _think(facts: Facts, action: Action) -> tuple[str, int, list[Payload]]:
    """The reasoning as text, its number of frames, and the frames."""
    wanted = action.think
    if wanted is None:
        wanted = len(THOUGHTS) if facts.thinking else 0
    if not wanted:
        return "", 0, []
    if isinstance(wanted, str):
        entries = [
            ("Thinking", piece) for piece in frames.pieces_of(wanted, max(1, len(wanted) // 12))
        ]
    else:
        entries = [THOUGHTS[index % len(THOUGHTS)] for index in range(wanted)]
        entries = [(title, thought + " ") for title, thought in entries]
    reasoning = "".join(thought for _, thought in entries)
    if (action.think_format or facts.thinking_format) == "summary":
        return reasoning, len(entries), list(frames.thinking_summary(facts.ids, entries))
    pieces = [thought for _, thought in entries]
    sent = facts.prompt_tokens
    shown = frames.thinking(
        facts.ids, pieces, phase=action.think_phase, family=action.usage, sent=sent
    )
    return reasoning, len(entries), list(shown)


def _search(facts: Facts, action: Action) -> list[Payload]:
    count = (
        action.search if action.search is not None else (3 if facts.chat_type == "search" else 0)
    )
    if not count:
        return []
    results: list[Payload] = [
        {
            "title": f"Result {number}",
            "url": f"https://example.org/{number}",
            "hostname": "example.org",
            "snippet": f"What page {number} says.",
            "date": "2026-05-01",
        }
        for number in range(1, count + 1)
    ]
    return list(frames.web_search(facts.ids, [facts.prompt[-60:]], results))


def _interleaved(first: list[Payload], twin: Ids) -> list[Payload]:
    second = list(frames.answer(twin, ["This is ", "the other ", "candidate."]))
    mixed: list[Payload] = []
    for index in range(max(len(first), len(second))):
        mixed += second[index : index + 1] + first[index : index + 1]
    return mixed


def _without_phase(payload: Payload | bytes) -> Payload | bytes:
    if isinstance(payload, dict) and payload.get("choices"):
        payload["choices"][0]["delta"].pop("phase", None)
    return payload


def _with_lone_surrogates(payload: Payload | bytes) -> Payload | bytes:
    if isinstance(payload, bytes):
        return payload
    return next(iter(frames.lone_surrogates([payload])))


def _situation(name: str) -> bytes:
    build = frames.SITUATIONS.get(name) or frames.SITUATIONS.get(f"{name}.sse")
    if build is None:
        raise ScriptError(f"no situation named {name!r}")
    return build()


def _events_of(stream: bytes) -> list[bytes]:
    """Cut a whole stream after its empty lines, so that pacing and positions apply to it."""
    parts = re.split(rb"(?<=\r\n\r\n)|(?<=\n\n)|(?<=\r\r)", stream)
    return [part for part in parts if part]


def canned_events(count: int, *, word: str | None = None) -> list[bytes]:
    """`count` events of a plain answer, the first and the last one included; `word` is all it says."""
    ids = Ids()
    typing = max(0, count - 2)
    pieces = [word or WORDS[index % len(WORDS)] + " " for index in range(typing)]
    payloads: list[Any] = [frames.created(ids), *frames.answer(ids, pieces)]
    return spell_all(payloads[-count:] if count < 2 else payloads)
