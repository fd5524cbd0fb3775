import pytest

from deploy import docs


def test_a_marked_section_is_replaced_and_nothing_else() -> None:
    page = "before\n<!-- settings:begin -->\nstale words\n<!-- settings:end -->\nafter\n"
    fresh = docs.with_sections(page)
    assert fresh.startswith("before\n<!-- settings:begin -->\n| name | default | | meaning |")
    assert fresh.endswith("<!-- settings:end -->\nafter\n")
    assert "stale words" not in fresh
    assert docs.with_sections(fresh) == fresh


def test_a_page_without_markers_stays_as_it_is() -> None:
    assert docs.with_sections("plain\n") == "plain\n"


@pytest.mark.parametrize(
    "page",
    [
        "<!-- settings:begin -->",
        "<!-- settings:end -->",
        "<!-- settings:end --><!-- settings:begin -->",
        "<!-- keys:begin --><!-- keys:end --><!-- keys:begin --><!-- keys:end -->",
    ],
)
def test_markers_that_do_not_match_are_refused(page: str) -> None:
    with pytest.raises(docs.MarkerError):
        docs.with_sections(page)
