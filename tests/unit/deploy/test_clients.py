"""The table of clients in the README, and how it comes of what their tests showed."""

from pathlib import Path

from deploy.clients import Client, markdown_table, read_seen, write_seen
from tests.fakes.seen import Family, Seen

CODEX = Family("Codex", "OpenAI Responses", npm="@openai/codex")


def test_what_was_seen_is_kept_in_the_order_of_names(tmp_path: Path) -> None:
    path = tmp_path / "seen.json"
    codex = Client(client="Codex", version="1", speaks="Responses", date="2026-11-23")
    agent = Client(client="an agent", version="2", speaks="Chat", date="2026-11-23")
    write_seen([codex, agent], path)
    assert read_seen(path) == [agent, codex]


def test_the_table_tells_what_works_what_fails_and_what_doesnt_yet(tmp_path: Path) -> None:
    path = tmp_path / "seen.json"
    client = Client(
        client="Codex",
        version="1.2",
        speaks="OpenAI Responses",
        date="2026-11-23",
        works=["a loop", "a | pipe"],
        fails=["a patch"],
        not_yet=["pictures"],
    )
    write_seen([client], path)
    assert markdown_table(path) == (
        "| client | version | API | seen to work | seen on |\n"
        "|---|---|---|---|---|\n"
        "| Codex | 1.2 | OpenAI Responses | a loop · a \\| pipe · **fails:** a patch · "
        "*not yet:* pictures | 2026-11-23 |\n"
    )


def test_the_published_file_can_be_read() -> None:
    assert {"Claude Code", "Codex", "LangChain"} <= {one.client for one in read_seen()}


def test_what_didnt_hold_once_doesnt_hold() -> None:
    seen = Seen()
    for what, outcome in (("a", "works"), ("b", "works"), ("b", "fails"), ("b", "works")):
        seen.note(CODEX, what, outcome)  # type: ignore[arg-type]  # literals in a loop
    seen.note(CODEX, "c", "not_yet")
    assert seen.families == [CODEX]
    assert seen.client(CODEX, version="1.2", date="2026-11-23") == Client(
        client="Codex",
        version="1.2",
        speaks="OpenAI Responses",
        date="2026-11-23",
        works=["a"],
        fails=["b"],
        not_yet=["c"],
    )
