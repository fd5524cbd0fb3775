"""JSON that is read while it is written: valid text passes as it is, the rest is mended or refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.turns.json_text import (
    MAX_DEPTH,
    Captured,
    JsonReader,
    ObjectReader,
    Skipped,
    StringReader,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def read(
    text: str, *, size: int = 1_000_000, strict: bool = False, over: bool = False
) -> tuple[str, JsonReader]:
    """What is written of this text when it comes in pieces of this size, with a blank behind.

    over: nothing more comes: it is completed.
    """
    written: list[str] = []
    reader = JsonReader(written.append, strict=strict)
    rest = ""
    text += " "
    for at in range(0, len(text), size):
        if reader.done or reader.refused:
            break
        rest += text[at : at + size]
        rest = rest[reader.read(rest, 0) :]
    if over and not reader.refused:
        reader.complete()
    return "".join(written), reader


@given(values, st.booleans(), st.sampled_from([None, 2]), st.integers(1, 9), st.booleans())
def test_valid_json_passes_as_it_is_at_any_size(
    value: Any, ascii_only: bool, indent: int | None, size: int, strict: bool
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    if "Infinity" not in text:
        written, reader = read(text, size=size, strict=strict)
        assert (written.rstrip(), reader.done) == (text, True)


FRAGMENTS = (
    "{", "}", "[", "]", ",", ":", '"a"', "'b\"'", '"', "1", "-", "1.5e3", "01", "true", "True", "NaN",
    "nul", " ", "\n", "\\", '"\n"', '"\\d"', '"\\ud83d"', "<", '"\\u12',
)  # fmt: skip
broken_texts = st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join)


@given(broken_texts, st.integers(1, 5))
def test_whatever_is_called_whole_is_valid_json_and_the_same_at_any_size(
    text: str, size: int
) -> None:
    written, reader = read(text, size=size, over=True)
    if reader.done:
        json.loads(written)
        assert read(text, over=True)[0] == written


@given(broken_texts)
def test_the_strict_reader_takes_only_what_is_valid(text: str) -> None:
    written, reader = read(text, strict=True)
    if reader.done:
        json.loads(written)


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ('"a\nb\tc\x01"', '"a\\nb\\tc\\u0001"'),
        (r'"\d \x \u12 \' "', r'''"\\d \\x \\u12 ' "'''),
        (r'"\ud83d" ', r'"\ufffd"'),
        (r'"\ud83d\ude42"', r'"\ud83d\ude42"'),
        ("[1, 2, ]", "[1, 2 ]"),
        ('{"a": 1,}', '{"a": 1}'),
        ("[True, False, None, NaN]", "[true, false, null, null]"),
        ("{'it': 'a \"b\" c'}", '{"it": "a \\"b\\" c"}'),
    ],
)
def test_what_was_meant_beyond_doubt_is_written(text: str, mended: str) -> None:
    for size in (1, 2, 3, 100):
        written, reader = read(text, size=size)
        assert (written.rstrip(), reader.done) == (mended, True)
    assert read(text, strict=True)[1].refused or text.strip() == mended


@pytest.mark.parametrize(
    "text",
    ["{a: 1}", '{"a" 1}', "[1 2]", "[1}", "01", "nul", "{1: 2}", '{"a": }', "[,]", "+1", "'"],
)
def test_what_could_mean_anything_is_refused_or_never_whole(text: str) -> None:
    _, reader = read(text)
    assert not reader.done
    assert reader.refused or not reader.complete()


def test_missing_closers_are_added_where_the_value_is_known_to_be_over() -> None:
    for text, closed in [('{"a": [1, {"b": 2', "}]}"), ("[", "]"), ('{"a": [', "]}"), ("[1", "]")]:
        written, reader = read(text, over=True)
        assert written.replace(" ", "") == (text + closed).replace(" ", "")
        assert reader.done
        assert reader.complete()


@pytest.mark.parametrize("text", ['{"a', '{"a"', '{"a":', '"a', '["a', ""])
def test_what_is_cut_inside_a_string_or_before_a_value_is_never_closed(text: str) -> None:
    assert not read(text)[1].complete()


def test_depth_has_a_bound() -> None:
    assert read("[" * MAX_DEPTH + "]" * MAX_DEPTH)[1].done
    assert read("[" * (MAX_DEPTH + 1))[1].refused


def test_a_number_has_a_bound() -> None:
    assert read("1" * 1_001 + ",")[1].refused


def test_a_string_reader_takes_strings_alone() -> None:
    said: list[str] = []
    reader = StringReader(said.append)
    text = r'"a\n\ud83d\ude42\ud83d é"'
    assert reader.read(text, 0) == len(text)
    assert ("".join(said), reader.done) == ("a\n🙂\ufffd é", True)
    other = StringReader(said.append)
    other.read("{", 0)
    assert other.refused


def test_an_object_is_read_member_by_member() -> None:
    kept: dict[str, Captured] = {}

    def choose(name: str, first: str) -> Captured | None:
        kept[name] = Captured()
        return kept[name] if first != "[" else None

    text = '{"a": {"b": 1}, \'c\': "d",}'
    reader = ObjectReader(choose)
    assert reader.read(text, 0) == len(text)
    assert reader.done
    assert {name: value.text for name, value in kept.items()} == {"a": '{"b": 1}', "c": '"d"'}
    for refused in ("[", "{1", '{"a" 1', '{"a": [', '{"a": 1 "b"'):
        reader = ObjectReader(choose)
        reader.read(refused, 0)
        assert reader.refused, refused


@pytest.mark.parametrize(
    ("text", "whole"),
    [('{"a": 1 ', True), ('{"a": {"b": 1', False), ("{", True), ('{"a', False), ('{"a":', False)],
)
def test_an_object_is_closed_where_nothing_is_open(text: str, whole: bool) -> None:
    reader = ObjectReader(lambda _name, _first: Skipped())
    reader.read(text, 0)
    assert reader.complete() is whole
