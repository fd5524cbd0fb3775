"""The golden upstream streams: one file per shape and oddity of sections 6, 7 and 15.3, fresh and readable."""

import re

import msgspec
import pytest

from tests.simulator import golden
from tests.simulator.frames import SITUATIONS

ASKED = """
plain think_then_answer thinking_summary web_search image_in_chat two_candidates usage_prompt_family usage_missing
keep_alive_frames crlf lone_cr bom no_blank_after_colon multi_data_lines comments_and_ids blank_before_line_end
line_separator_in_json lone_surrogates done_marker think_tag_in_answer truncated error_envelope_first error_envelope_as_frame
error_object_frame error_string_frame firewall_punish firewall_page frame_without_phase other_phases apology empty_answer
finished_then_open thinking_phase thought_phase usage_details tool_call_text only_created done_without_finish
"""
UNFINISHED = {
    "truncated.sse",
    "truncated_mid_frame.sse",
    "truncated_while_thinking.sse",
    "done_without_finish.sse",
    "only_created.sse",
    "empty_body.sse",
    "frame_without_phase.sse",
}


def test_every_file_is_what_its_builder_writes() -> None:
    """`python -m tests.simulator.golden` rewrites them."""
    assert golden.stale() == []


def test_every_shape_of_the_sheet_has_its_file() -> None:
    names = {name.rpartition(".")[0] for name in SITUATIONS}
    assert set(ASKED.split()) <= names
    assert len(SITUATIONS) >= 69


@pytest.mark.parametrize("name", [name for name in SITUATIONS if name.endswith(".json")])
def test_documents_are_json(name: str) -> None:
    assert isinstance(msgspec.json.decode(SITUATIONS[name]()), dict)


@pytest.mark.parametrize("name", [name for name in SITUATIONS if name.endswith(".sse")])
def test_a_stream_has_its_finished_answer_frame_or_is_meant_to_lack_it(name: str) -> None:
    """Section 6.1: `finished` with phase `answer` is the end."""
    flat = re.sub(rb"[\r\n]|data: ?| ", b"", SITUATIONS[name]())
    ended = b'"phase":"answer","status":"finished"' in flat
    failed = name.startswith(("error_", "firewall_"))
    assert ended == (name not in UNFINISHED and not failed)


def test_two_runs_write_the_same_bytes() -> None:
    for build in SITUATIONS.values():
        assert build() == build()
