"""The event-stream decoder against a slow one written straight from the WHATWG text."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import sse
from shared.sse import SSEDecoder


def decode(chunks: list[bytes], **options: int) -> list[bytes]:
    decoder = SSEDecoder(**options)
    return [data for chunk in chunks for data in decoder.feed(chunk)]


def cut(body: bytes, at: list[int]) -> list[bytes]:
    marks = [0, *sorted(mark % (len(body) + 1) for mark in at), len(body)]
    return [body[begin:end] for begin, end in itertools.pairwise(marks)]


def read_as_the_standard_says(body: bytes) -> list[bytes]:
    """Byte by byte: lines by LF, CR or CRLF; fields by the first colon; dispatch on an empty line."""
    body = body.removeprefix(b"\xef\xbb\xbf")
    lines, line, index = [], b"", 0
    while index < len(body):
        byte = body[index : index + 1]
        if byte in (b"\r", b"\n"):
            lines.append(line)
            line = b""
            index += 2 if body[index : index + 2] == b"\r\n" else 1
        else:
            line += byte
            index += 1
    events, data = [], b""
    for line in lines:
        if line == b"":
            if data:
                events.append(data[:-1])
            data = b""
            continue
        field, colon, value = line.partition(b":")
        if colon and value.startswith(b" "):
            value = value[1:]
        if field == b"data":
            data += value + b"\n"
    return events


LINES = st.sampled_from(
    [
        b"data: x",
        b"data:y",
        b"data:  two",
        b"data",
        b"data:",
        b"data: ",
        b": comment",
        b":",
        b"event: e",
        b"id: 1",
        b"retry: 5",
        b"datax: no",
        b" data: no",
        b"nonsense",
        b"",
        b"",
        "data: \u2028\u0085é".encode(),
    ]
)
BODIES = st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r", b"\r\n"])), max_size=14).map(
    lambda lines: b"".join(line + end for line, end in lines)
)


@given(BODIES, st.booleans(), st.lists(st.integers(0, 400), max_size=12))
def test_any_bytes_however_cut_are_read_as_the_standard_says(
    body: bytes, bom: bool, at: list[int]
) -> None:
    body = b"\xef\xbb\xbf" * bom + body
    expected = read_as_the_standard_says(body)
    assert decode([body]) == expected
    assert decode(cut(body, at)) == expected
    assert decode([body[i : i + 1] for i in range(len(body))]) == expected


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\r", [b"a", b"b"]),
        (b"\n\n\n\ndata: a\n\n\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: a\n: a comment in between\ndata:b\nid: 9\n\n", [b"a\nb"]),
        (b"data:\n\n", [b""]),
        (b"event: ping\n\n", []),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"]),
        ("data: a\u2028b\u0085c\x0bd\n\n".encode(), ["a\u2028b\u0085c\x0bd".encode()]),
        (b"data: never finished", []),
    ],
)
def test_events_are_cut_at_empty_lines_and_nowhere_else(body: bytes, events: list[bytes]) -> None:
    assert decode([body]) == events
    assert decode([body[i : i + 1] for i in range(len(body))]) == events


def test_a_line_end_cut_in_two_is_one_line_end() -> None:
    assert decode([b"data: a\r", b"\n", b"data: b\r\n", b"\r", b"\n"]) == [b"a\nb"]


def test_empty_chunks_change_nothing() -> None:
    assert decode([b"", b"data: a\r", b"", b"\n\r", b"", b"\n", b""]) == [b"a"]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_frame_over_the_bound_ends_the_reading_and_spares_what_came_before(size: int) -> None:
    body = b"data: ok\n\ndata: " + b"x" * 95 + b"\n\ndata: late\n\n"
    decoder = SSEDecoder(max_frame_bytes=100)
    read = [data for at in range(0, len(body), size) for data in decoder.feed(body[at : at + size])]
    assert read == [b"ok"]
    assert decoder.overflowed
    assert decoder.feed(b"data: more\n\n") == []


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_frame_of_just_the_bound_passes(size: int) -> None:
    body = b"data: " + b"x" * 94 + b"\n\ndata: next\n\n"
    decoder = SSEDecoder(max_frame_bytes=100)
    read = [data for at in range(0, len(body), size) for data in decoder.feed(body[at : at + size])]
    assert read == [b"x" * 94, b"next"]
    assert not decoder.overflowed


def test_a_body_without_any_line_end_is_not_kept_beyond_the_bound() -> None:
    decoder = SSEDecoder(max_frame_bytes=1000)
    for _ in range(50):
        assert decoder.feed(b"x" * 100) == []
    assert decoder.overflowed


def test_the_unfinished_event_can_be_looked_at() -> None:
    decoder = SSEDecoder()
    decoder.feed(b"data: whole\n\ndata: unfin")
    decoder.feed(b"ished")
    assert decoder.unfinished() == b"unfinished"
    assert SSEDecoder().unfinished() is None


def test_what_is_written_is_read_back() -> None:
    written = sse.KEEPALIVE + sse.frame(b'{"a":1}') + sse.named_frame(b"ping", b"{}")
    assert decode([written]) == [b'{"a":1}', b"{}"]
    assert sse.named_frame(b"ping", b"{}") == b"event: ping\ndata: {}\n\n"
