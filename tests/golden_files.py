"""Write the golden files: `python -m tests.golden_files [--check]`.

`tests/golden/upstream/<situation>.sse` through the upstream's decoder and each dialect becomes

    tests/golden/<dialect>/<situation>.sse     the stream, where it begins at all
    tests/golden/<dialect>/<situation>.json    the whole reply, or the error body

and, where the model writes a call, `<situation>_read.…`: what a caller reads that offered the tool;

with the turn's id and time fixed, so that a change in any translator is a reviewed difference.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from gateway.dialects import DIALECTS, Dialect, Turn
from shared.chat.collect import Collector
from shared.chat.events import Event, TurnFailed
from shared.chat.request import ChatRequest, Tool
from shared.turns.stages import Stages
from shared.upstream.stream import UpstreamDecoder
from tests.simulator import golden as upstream

FOLDER = Path(__file__).resolve().parent / "golden"
SITUATIONS = FOLDER / "upstream"
CALLS = [SITUATIONS / f"{name}.sse" for name in ("tool_call_text", "tool_call_xml")]


def expected(dialect_name: str) -> dict[str, bytes]:
    """File name → content, for every situation of the upstream."""
    dialect = DIALECTS[dialect_name]
    files: dict[str, bytes] = {}
    for path in sorted(SITUATIONS.glob("[!.]*")):
        for suffix, content in written(dialect, events_of(path.read_bytes())).items():
            files[path.stem + suffix] = content
    for path in CALLS:
        for suffix, content in written(dialect, calls_of([path.read_bytes()])).items():
            files[f"{path.stem}_read{suffix}"] = content
    return files


def events_of(body: bytes) -> list[Event]:
    decoder = UpstreamDecoder()
    return [*decoder.feed(body), *decoder.close()]


def calls_of(pieces: Iterable[bytes]) -> list[Event]:
    """The events of an answer in these pieces, for a caller that offered the tool it calls."""
    decoder = UpstreamDecoder()
    tools = (Tool("get_weather"),)
    request = ChatRequest(model="qwen", messages=(), tools=tools)
    stages = Stages(request, model="qwen", call_id="call_{}".format)
    events = [event for piece in pieces for event in stages.feed_all(decoder.feed(piece))]
    return [*events, *stages.feed_all(decoder.close())]


def written(dialect: Dialect, events: list[Event]) -> dict[str, bytes]:
    """`.sse` and `.json` of one turn; a turn that fails before its first event has no stream."""
    turn = Turn(id=dialect.new_id("0" * 24), created=1795400000, model="qwen", include_usage=True)
    collector = Collector()
    for event in events:
        collector.feed(event)
    if collector.error is not None:
        answer = dialect.write_error(collector.error, "request-1")
    else:
        answer = dialect.write_reply(turn, collector.reply)
    files = {".json": answer + b"\n"}
    if not isinstance(events[0], TurnFailed):
        writer = dialect.open_writer(turn)
        files[".sse"] = b"".join(map(writer.feed, events))
    return files


def stale(dialect_name: str) -> list[str]:
    """Names of files that are missing, differ, or have no situation any more."""
    wanted = expected(dialect_name)
    present = {path.name: path.read_bytes() for path in (FOLDER / dialect_name).glob("[!.]*")}
    return sorted(n for n in wanted.keys() | present.keys() if wanted.get(n) != present.get(n))


def write(dialect_name: str) -> list[str]:
    """Bring the dialect's folder up to date; returns the names that changed."""
    folder = FOLDER / dialect_name
    folder.mkdir(exist_ok=True)
    changed, wanted = stale(dialect_name), expected(dialect_name)
    for name in changed:
        if name in wanted:
            (folder / name).write_bytes(wanted[name])
        else:
            (folder / name).unlink()
    return changed


def main(arguments: list[str]) -> int:
    if "--check" in arguments:
        names = [*upstream.stale(), *(name for dialect in DIALECTS for name in stale(dialect))]
        print("\n".join(names) if names else "golden files are fresh")
        return 1 if names else 0
    changed = [*upstream.write(), *(name for dialect in DIALECTS for name in write(dialect))]
    print(f"{len(changed)} golden files changed", *changed, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
