"""What OpenAI's two dialects read alike: tools and their choice, formats, content, effort.

Source: OpenAI API reference, chat completions and responses, read 2026-11.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.dialects.fields import EFFORT_BUDGETS, json_schema_object
from shared.chat.json_schema import compile_schema
from shared.chat.request import OutputFormat, Role, TextPart, Tool, ToolChoice
from shared.errors import BadRequest

# Spellings of OpenAI → neutral roles.
ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


class Unheeded(msgspec.Struct):
    """Fields the upstream can't honour: accepted and named in `ChatRequest.ignored`.

    Any: they are read by nobody.
    """

    temperature: Any = None
    top_p: Any = None
    top_k: Any = None
    min_p: Any = None
    seed: Any = None
    frequency_penalty: Any = None
    presence_penalty: Any = None
    repetition_penalty: Any = None
    logit_bias: Any = None
    logprobs: Any = None
    top_logprobs: Any = None
    user: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None


class ContentPart(msgspec.Struct):
    """`{"type": "text" | "input_text" | "output_text", "text"}`, `{"type": "refusal", …}`."""

    type: str
    text: str | None = None
    refusal: str | None = None


class Schema(msgspec.Struct):
    """`{"name", "schema", "strict"}`: of a `json_schema` format."""

    name: str = ""
    schema: msgspec.Raw = msgspec.Raw()
    strict: bool | None = None


_MEDIA = {
    "image_url", "image", "input_image", "video_url", "video", "input_video",
    "input_audio", "audio", "audio_url", "file", "input_file",
}  # fmt: skip


def read_content(given: str | Sequence[ContentPart] | None, path: str) -> tuple[TextPart, ...]:
    """The content of a message, a text or its parts; `path` is the content's.

    Raises:
        BadRequest: missing, of an unknown kind, or media, which isn't supported yet.
    """
    if given is None:
        raise BadRequest(f"{path} is missing", param=path)
    if isinstance(given, str):
        return (TextPart(given),)
    return tuple(_read_part(part, f"{path}[{index}]") for index, part in enumerate(given))


def _read_part(given: ContentPart, path: str) -> TextPart:
    match given.type:
        case "text" | "input_text" | "output_text":
            text, field = given.text, "text"
        case "refusal":
            text, field = given.refusal, "refusal"
        case kind if kind in _MEDIA:
            raise BadRequest(f"{path}.type: {kind} isn't supported yet", param=f"{path}.type")
        case _:
            raise BadRequest(f"{path}.type: unknown kind of content", param=f"{path}.type")
    if text is None:
        raise BadRequest(f"{path}.{field} is missing", param=f"{path}.{field}")
    return TextPart(text)


def read_function(name: str, description: str | None, schema: msgspec.Raw, path: str) -> Tool:
    """A tool that takes JSON; `path` is the function's."""
    if not name:
        raise BadRequest(f"{path}.name is missing", param=f"{path}.name")
    parameters = json_schema_object(schema, f"{path}.parameters")
    return Tool(name, description or "", parameters)


def read_custom(name: str, description: str | None, format_: object, path: str) -> Tool:
    """A tool that takes free text; `path` is the tool's."""
    if not name:
        raise BadRequest(f"{path}.name is missing", param=f"{path}.name")
    return Tool(name, description or "", kind="custom", grammar=_read_grammar(format_))


def _read_grammar(given: object) -> str:
    """`{"type": "grammar", "grammar": {"syntax", "definition"}}`; also without the inner object."""
    if not isinstance(given, dict):
        return ""
    inner = given.get("grammar") if isinstance(given.get("grammar"), dict) else given
    definition = inner.get("definition") if isinstance(inner, dict) else None
    return definition if isinstance(definition, str) else ""


def choose_mode(tools: Sequence[Tool], mode: str, path: str) -> ToolChoice:
    """Whether one of these tools must be called.

    Raises:
        BadRequest: no such mode, or nothing is there that could be required.
    """
    match mode:
        case "auto" | "none":
            return ToolChoice(mode if tools else "auto")
        case "required" | "any":
            if not tools:
                raise BadRequest(f"{path}: there are no tools in this request", param=path)
            return ToolChoice("required")
        case _:
            raise BadRequest(f"{path}: expected auto, none, required or a tool", param=path)


def choose_named(tools: Sequence[Tool], name: str, path: str) -> ToolChoice:
    """This tool must be called.

    Raises:
        BadRequest: it isn't among them.
    """
    if name not in {tool.name for tool in tools}:
        raise BadRequest(f"{path}: there is no tool {name!r} in this request", param=path)
    return ToolChoice("named", name)


def read_format(kind: str, given: Schema | None, *, path: str, schema: str) -> OutputFormat | None:
    """What the answer's text must be; None when any text will do.

    Args:
        path: of the format.
        schema: path of what `given` stands in.

    Raises:
        BadRequest: no such format, or no JSON Schema where one is needed.
    """
    if kind == "text":
        return None
    if kind == "json_object":
        return OutputFormat()
    if kind != "json_schema":
        raise BadRequest(
            f"{path}.type: expected text, json_object or json_schema", param=f"{path}.type"
        )
    if given is None or not bytes(given.schema):
        raise BadRequest(f"{schema}.schema is missing", param=f"{schema}.schema")
    compile_schema(bytes(given.schema), param=f"{schema}.schema")
    return OutputFormat(bytes(given.schema), given.name, bool(given.strict))


_EFFORTS = {"none": "none", "minimal": "none", "max": "xhigh"} | {e: e for e in EFFORT_BUDGETS}


def read_effort(given: str | None, path: str) -> str | None:
    """A key of `EFFORT_BUDGETS`, or `none`, or None when nothing was said."""
    if not given:
        return None
    if effort := _EFFORTS.get(given):
        return effort
    known = ", ".join(sorted(_EFFORTS))
    raise BadRequest(f"{path}: expected one of {known}", param=path)
