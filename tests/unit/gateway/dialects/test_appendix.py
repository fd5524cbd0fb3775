import re
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.appendix import Appendix, write_appendix
from shared.chat.events import Source

Mode = Literal["table", "text"]


def rows(*sources: Source, mode: Mode = "table") -> list[str]:
    return _write(sources, mode).text.split("\n")[0 if mode == "text" else 2 :]


def _write(sources: tuple[Source, ...], mode: Mode) -> Appendix:
    return write_appendix([], sources, search_info_mode=mode, after_text=False)


@pytest.mark.parametrize(
    ("source", "row"),
    [
        (Source("T", "https://a.b/c", hostname="a.b"), "| 1 | [T](https://a.b/c) | a.b |"),
        (Source("T", "https://a.b/c"), "| 1 | [T](https://a.b/c) | a.b |"),
        (Source("", "https://a.b/c"), "| 1 | [https://a.b/c](https://a.b/c) | a.b |"),
        (Source("", "", hostname="a.b"), "| 1 | a.b | a.b |"),
        (Source("T"), "| 1 | T |  |"),
        (Source("a|b\nc]d"), r"| 1 | a\|b c\]d |  |"),
        (Source("T", "https://a.b/x|y) [z](#"), "| 1 | [T](https://a.b/x%7Cy%29%20%5Bz%5D%28#) | a.b |"),
        (Source("T", "https://a.b/\n\n# x"), "| 1 | [T](https://a.b/%0A%0A#%20x) | a.b |"),
        (Source("T", "https://a.b/?q=%20é"), "| 1 | [T](https://a.b/?q=%20%C3%A9) | a.b |"),
        (Source("T", "javascript:alert(1)"), "| 1 | T |  |"),
        (Source("T", "data:text/html,x"), "| 1 | T |  |"),
        (Source("<img src=x>", "HTTPS://A.b/"), r"| 1 | [\<img src=x\>](HTTPS://A.b/) | a.b |"),
    ],
)  # fmt: skip
def test_a_source_is_one_safe_row(source: Source, row: str) -> None:
    assert rows(source) == [row]


def test_text_mode_is_a_numbered_list() -> None:
    sources = (Source("A", "https://a.b/", hostname="a.b"), Source("B"))
    assert rows(*sources, mode="text") == ["1. [A](https://a.b/) — a.b", "2. B"]


texts = st.text(alphabet=st.sampled_from("a|[]()\\\n\r\t <>`*!#\u2028é"), max_size=12)


@given(
    st.lists(
        st.builds(Source, texts, texts.map("https://a.b/".__add__), hostname=texts), max_size=4
    ),
    st.sampled_from(["table", "text"]),
    st.booleans(),
)
def test_no_title_or_address_breaks_its_row(
    sources: list[Source], mode: Mode, after_text: bool
) -> None:
    appendix = write_appendix([], sources, search_info_mode=mode, after_text=after_text)
    head = (2 if mode == "table" else 0) + (2 if after_text else 0)
    lines = appendix.text.split("\n") if sources else []
    assert len(lines) == (head + len(sources) if sources else 0)
    for line in lines[head:]:
        bare = re.sub(r"\\.", "", line)
        assert bare.count("|") == (4 if mode == "table" else 0)
        assert bare.count("](") == 1
    for cited in appendix.citations:
        link = appendix.text[cited.start : cited.end]
        assert link.startswith("[")
        assert link.endswith(f"]({cited.url})")


def test_pictures_come_before_sources_each_parted_by_an_empty_line() -> None:
    media = [("image", "https://a.b/1.png"), ("video", "https://a.b/2.mp4"), ("image", "nonsense")]
    appendix = write_appendix(media, [Source("T")], search_info_mode="text", after_text=True)
    assert appendix.text == (
        "\n\n![image](https://a.b/1.png)\n\n[video](https://a.b/2.mp4)\n\nnonsense\n\n1. T"
    )


def test_nothing_makes_no_appendix() -> None:
    assert write_appendix([], [], search_info_mode="table", after_text=True) == Appendix()
