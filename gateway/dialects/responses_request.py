"""OpenAI Responses, the request: fields, input items, tools.

Source: OpenAI API reference and its Python SDK's types; what Codex CLI 0.169 sends, seen 2026-11.

Long because it is one request body, field by field.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from gateway.dialects.body import is_empty, read_body
from gateway.dialects.fields import EFFORT_BUDGETS, asks, at_least_one, says_something
from gateway.dialects.openai_fields import (
    ROLES,
    ContentPart,
    Schema,
    Unheeded,
    choose_mode,
    choose_named,
    read_content,
    read_custom,
    read_effort,
    read_format,
    read_function,
)
from shared.chat.request import (
    ChatRequest,
    Message,
    OutputFormat,
    Part,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
)
from shared.errors import BadRequest


class _Summary(msgspec.Struct):
    text: str = ""


class _Item(msgspec.Struct):
    """An input item of any kind, as far as we look at it."""

    type: str | None = None
    id: str | None = None
    role: str | None = None
    content: str | list[ContentPart] | None = None
    summary: list[_Summary] | None = None
    call_id: str | None = None
    namespace: str | None = None
    name: str | None = None
    arguments: str | None = None
    input: str | None = None
    tools: list["_Tool"] | None = None
    output: str | list[ContentPart] | None = None


class _Tool(msgspec.Struct):
    """A function, a custom tool, a web search, or a namespace of `tools`."""

    type: str = "function"
    name: str = ""
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw()
    format: Any = None  # Any: shown to the model as it is
    tools: list["_Tool"] | None = None
    external_web_access: bool | None = None
    # Wishes of a web search that the upstream's can't honour. Any: named when they are there.
    filters: Any = None
    search_context_size: Any = None
    user_location: Any = None


class _Choice(msgspec.Struct):
    """`{"type": "function" | "custom", "name"}`, `{"type": "web_search"}`, allowed_tools."""

    type: str
    name: str = ""
    namespace: str | None = None
    mode: str = "auto"
    tools: list["_Choice"] | None = None


class _Format(Schema):
    type: str = "text"


class _Text(msgspec.Struct):
    format: _Format | None = None
    verbosity: Any = None  # Any: read by nobody


class _Reasoning(msgspec.Struct):
    effort: str | None = None


class _Request(Unheeded):
    model: str | None = None
    input: str | list[_Item] | None = None
    instructions: str | None = None
    stream: bool | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | _Choice | None = None
    parallel_tool_calls: bool | None = None
    text: _Text | None = None
    reasoning: _Reasoning | None = None
    max_output_tokens: int | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    background: bool | None = None
    metadata: dict[str, str] | None = None
    include: list[str] | None = None
    truncation: str | None = None
    max_tool_calls: Any = None  # Any: read by nobody, like what follows
    context_management: Any = None
    moderation: Any = None
    conversation: Any = None
    prompt: Any = None


class _AsGiven(msgspec.Struct, frozen=True):
    """Fields that the answer repeats just as they came."""

    tools: msgspec.Raw = msgspec.Raw(b"[]")
    tool_choice: msgspec.Raw = msgspec.Raw(b'"auto"')
    text: msgspec.Raw = msgspec.Raw(b'{"format":{"type":"text"}}')
    reasoning: msgspec.Raw = msgspec.Raw(b'{"effort":null,"summary":null}')


class Echo(_AsGiven, frozen=True, kw_only=True):
    """What of a request is seen again in its response; kept with it.

    `plain`: the text is free text; what isn't must stay the document it is, with nothing behind it.
    `namespaces`: whole name of a tool → the namespace it begins with.
    """

    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str] = {}
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    store: bool = True
    background: bool = False
    truncation: str = "disabled"
    plain: bool = True
    namespaces: dict[str, str] = {}


class Reference(msgspec.Struct, frozen=True):
    """An item of an earlier response that stands in the input by its id alone.

    `before` = how many of the request's own items stand before it; `path` = where it was named.
    """

    item_id: str
    before: int
    path: str


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What a request says beyond the neutral one.

    `items` = the input, one message per item, as `with_earlier` needs them. `starting_after` = the
    number of the last event that isn't written again.
    """

    echo: Echo = Echo()
    items: tuple[Message, ...] = ()
    references: tuple[Reference, ...] = ()
    starting_after: int = -1


_DECODER = msgspec.json.Decoder(_Request)
_GIVEN_DECODER = msgspec.json.Decoder(_AsGiven)


def read_request(body: bytes) -> ChatRequest:
    """Read `{"model", "input": "text" | [items], "instructions", …}`.

    What `previous_response_id` and item references mean must be looked up: `with_earlier` puts it
    in. Until then the request holds its own input only.

    Raises:
        BadRequest: malformed, a field missing or wrong, or something that isn't supported.
    """
    given = read_body(body, _DECODER)
    if not given.model or not given.model.strip():
        raise BadRequest("model is missing", param="model")
    _refuse_unsupported(given)
    offered = _read_tools(given)
    input_ = _read_input(given.input)
    output_format = _read_format(given.text)
    effort = read_effort(given.reasoning.effort if given.reasoning else None, "reasoning.effort")
    if given.max_output_tokens is not None:
        at_least_one(given.max_output_tokens, "max_output_tokens")
    echo = _read_echo(given, body, plain=output_format is None, namespaces=offered.namespaces)
    request = ChatRequest(
        model=given.model,
        messages=(),
        stream=given.stream or False,
        include_usage=True,
        thinking=None if effort is None else effort != "none",
        thinking_budget=EFFORT_BUDGETS.get(effort or ""),
        search=offered.search,
        max_output_tokens=given.max_output_tokens,
        tools=offered.tools,
        tool_choice=offered.choice,
        parallel_tool_calls=echo.parallel_tool_calls,
        output_format=output_format,
        ignored=(*_read_ignored(given), *offered.ignored, *input_.ignored),
        given=Given(echo=echo, items=tuple(input_.items), references=tuple(input_.references)),
    )
    return with_earlier(request, (), {})


def with_earlier(
    request: ChatRequest, earlier: Sequence[Message], referred: Mapping[str, Message]
) -> ChatRequest:
    """The request with what was said before it: instructions, `earlier`, its own input.

    Args:
        earlier: the messages of the responses before, the oldest first.
        referred: item id → the item, as a message of its own.
    """
    given = given_of(request.given)
    input_ = input_of(request, referred)
    instructions = given.echo.instructions
    system = (Message("system", (TextPart(instructions),)),) if instructions else ()
    messages = (*system, *earlier, *input_)
    return msgspec.structs.replace(request, messages=messages)


def input_of(request: ChatRequest, referred: Mapping[str, Message]) -> tuple[Message, ...]:
    """The request's own input, as it is kept: without instructions and what came before."""
    given = given_of(request.given)
    items: list[Message] = []
    references = list(given.references)
    for count, item in enumerate((*given.items, None)):
        while references and references[0].before == count:
            reference = references.pop(0)
            if found := referred.get(reference.item_id):
                items.append(found)
        if item is not None:
            items.append(item)
    return tuple(_joined(items))


def given_of(given: object) -> Given:
    return given if isinstance(given, Given) else Given()


def _joined(items: Iterable[Message]) -> Iterator[Message]:
    """Reasoning, the text after it and the calls behind that are one message of the assistant."""
    last: Message | None = None
    for item in items:
        if last is not None and _belong_together(last, item):
            last = Message("assistant", last.parts + item.parts)
            continue
        if last is not None:
            yield last
        last = item
    if last is not None:
        yield last


def _belong_together(message: Message, item: Message) -> bool:
    if not message.role == item.role == "assistant":
        return False
    is_call = all(type(part) is ToolCallPart for part in item.parts)
    return is_call or all(type(part) is ReasoningPart for part in message.parts)


def _refuse_unsupported(given: _Request) -> None:
    for name in ("conversation", "prompt"):
        if asks(getattr(given, name)):
            raise BadRequest(f"{name}: there are none here; send input instead", param=name)
    if given.truncation not in (None, "auto", "disabled"):
        raise BadRequest("truncation: expected auto or disabled", param="truncation")
    if given.background and given.store is False:
        raise BadRequest("background: what isn't stored can't be fetched", param="background")


def _read_echo(given: _Request, body: bytes, *, plain: bool, namespaces: dict[str, str]) -> Echo:
    raw, default = read_body(body, _GIVEN_DECODER), _AsGiven()
    repeated = {
        name: getattr(default if is_empty(bytes(getattr(raw, name))) else raw, name)
        for name in _AsGiven.__struct_fields__
    }
    return Echo(
        **repeated,
        instructions=given.instructions,
        max_output_tokens=given.max_output_tokens,
        metadata=given.metadata or {},
        parallel_tool_calls=given.parallel_tool_calls is not False,
        previous_response_id=given.previous_response_id or None,
        store=given.store is not False,
        background=bool(given.background),
        truncation=given.truncation or "disabled",
        plain=plain,
        namespaces=namespaces,
    )


def _read_format(given: _Text | None) -> OutputFormat | None:
    if given is None or given.format is None:
        return None
    return read_format(given.format.type, given.format, path="text.format", schema="text.format")


# What can't be honoured of a response alone; the rest is in `Unheeded`.
_UNHEEDED = (*Unheeded.__struct_fields__, "max_tool_calls", "context_management", "moderation")
_GIVEN_ANYWAY = {"web_search_call.action.sources", "web_search_call.results"}


def _read_ignored(given: _Request) -> Iterator[str]:
    """Names of the given fields nobody heeds."""
    yield from (name for name in _UNHEEDED if asks(getattr(given, name)))
    if given.text and asks(given.text.verbosity):
        yield "text.verbosity"
    if given.truncation == "auto":
        yield "truncation"
    if set(given.include or ()) - _GIVEN_ANYWAY:
        yield "include"


# -- request: input


class _Input(msgspec.Struct):
    """One message per item, references beside them; `ignored` names what says nothing here."""

    items: list[Message] = []
    references: list[Reference] = []
    ignored: list[str] = []


def _read_input(given: str | list[_Item] | None) -> _Input:
    if not given:
        raise BadRequest("input is missing or empty", param="input")
    if isinstance(given, str):
        given = [_Item(role="user", content=given)]
    read = _Input()
    for index, item in enumerate(given):
        path, kind = f"input[{index}]", _kind(item)
        if kind == "item_reference":
            if not item.id:
                raise BadRequest(f"{path}.id is missing", param=f"{path}.id")
            read.references.append(Reference(item.id, len(read.items), f"{path}.id"))
        elif kind == _MORE_TOOLS:
            pass  # read with the others: see `_read_tools`
        elif kind in _OF_HOSTED_TOOLS:
            read.ignored.append(f"{path}.{kind}")
        else:
            read.items += _read_item(item, kind, path)
    if not read.references and not any(says_something(message) for message in read.items):
        raise BadRequest("input: there is no text in it", param="input")
    return read


def _kind(item: _Item) -> str:
    """An item may leave its type out where its other fields tell it."""
    if item.type:
        return item.type
    return "message" if item.role else "item_reference"


_MORE_TOOLS = "additional_tools"

# What the histories of hosted tools hold. Agents send them with every request; nobody here made
# them, and nobody here can read them.
_OF_HOSTED_TOOLS = frozenset(
    {
        "file_search_call", "computer_call", "computer_call_output", "code_interpreter_call",
        "image_generation_call", "local_shell_call", "local_shell_call_output", "shell_call",
        "shell_call_output", "apply_patch_call", "apply_patch_call_output", "mcp_list_tools",
        "mcp_approval_request", "mcp_approval_response", "mcp_call", "tool_search_call",
        "tool_search_output", "compaction", "program", "program_output",
        "configuration_update",
    }
)  # fmt: skip


def _read_item(given: _Item, kind: str, path: str) -> Iterator[Message]:
    match kind:
        case "message":
            yield _read_message(given, path)
        case "reasoning":
            if thought := _thought(given):
                yield _said(ReasoningPart(thought))
        case "function_call" | "custom_tool_call":
            call_id, name = _needed(given, "call_id", path), _needed(given, "name", path)
            name, custom = _whole_name(given.namespace, name), kind == "custom_tool_call"
            written = given.input if custom else given.arguments
            yield _said(ToolCallPart(call_id, name, written or "", custom))
        case "function_call_output" | "custom_tool_call_output":
            call_id = _needed(given, "call_id", path)
            output = read_content(given.output, f"{path}.output")
            yield Message("tool", (ToolResultPart(call_id, output),))
        case "web_search_call":
            return  # what it found stands in the answer that followed
        case _:
            raise BadRequest(
                f"{path}.type: {_spelled(kind)} items aren't supported", param=f"{path}.type"
            )


def _thought(given: _Item) -> str:
    """What of it can be read: `encrypted_content` can't."""
    pieces = [piece.text for piece in given.summary or ()]
    if not any(pieces) and not isinstance(given.content, str):
        pieces = [piece.text or "" for piece in given.content or ()]
    return "\n\n".join(filter(None, pieces))


def _said(part: Part) -> Message:
    return Message("assistant", (part,))


def _needed(given: _Item, field: Literal["call_id", "name"], path: str) -> str:
    value: str | None = getattr(given, field)
    if not value:
        raise BadRequest(f"{path}.{field} is missing", param=f"{path}.{field}")
    return value


def _read_message(given: _Item, path: str) -> Message:
    role = ROLES.get(given.role or "")
    if role is None or role == "tool":
        raise BadRequest(
            f"{path}.role: expected user, assistant, system or developer", param=f"{path}.role"
        )
    return Message(role, read_content(given.content, f"{path}.content"))


# -- request: tools


class _Offered(msgspec.Struct, frozen=True):
    """`search`: the upstream is to search the web. `ignored`: names for `x-gateway-ignored`."""

    tools: tuple[Tool, ...] = ()
    choice: ToolChoice = ToolChoice()
    search: bool = False
    namespaces: dict[str, str] = {}
    ignored: tuple[str, ...] = ()


def _read_tools(given: _Request) -> _Offered:
    """`tools` and `tool_choice`; hosted tools that we don't have are left out and named.

    Raises:
        BadRequest: a wrong tool or choice, or nothing is offered but hosted tools.
    """
    read = _ToolsReader()
    for index, tool in enumerate(given.tools or ()):
        read.tool(tool, f"tools[{index}]")
    for at, item in enumerate(given.input if isinstance(given.input, list) else ()):
        # Codex offers its tools there when it knows the model's name.
        for index, tool in enumerate(item.tools or () if item.type == _MORE_TOOLS else ()):
            read.tool(tool, f"input[{at}].tools[{index}]")
    offered = read.offered()
    return offered if given.tool_choice is None else _choose(offered, given.tool_choice)


class _ToolsReader:
    """Takes the declared tools one by one."""

    def __init__(self) -> None:
        self._tools: list[Tool] = []
        self._namespaces: dict[str, str] = {}
        self._hosted: list[str] = []
        self._ignored: list[str] = []
        self._search = self._offline = False

    def tool(self, tool: _Tool, path: str) -> None:
        match tool.type:
            case "function" | "custom":
                self._tools.append(_read_own(tool, path))
            case "namespace":
                self._namespace(tool, path)
            case kind if _is_search(kind):
                self._web_search(tool, path)
            case kind:
                self._hosted.append(f"{path}.{_spelled(kind)}")

    def offered(self) -> _Offered:
        if self._hosted and not (self._tools or self._search or self._offline):
            param, _, kind = self._hosted[0].rpartition(".")
            raise BadRequest(f"{param}.type: {kind} tools don't run here", param=f"{param}.type")
        return _Offered(
            tuple(self._tools),
            search=self._search,
            namespaces=self._namespaces,
            ignored=(*self._hosted, *self._ignored),
        )

    def _namespace(self, given: _Tool, path: str) -> None:
        """Its tools are called by their whole names; the first says what they are for."""
        if not given.name:
            raise BadRequest(f"{path}.name is missing", param=f"{path}.name")
        about = given.description or ""
        for index, inner in enumerate(given.tools or ()):
            tool = _read_own(inner, f"{path}.tools[{index}]")
            description = f"({given.name}: {about}) {tool.description}" if about else None
            name = _whole_name(given.name, tool.name)
            self._namespaces[name] = given.name
            self._tools.append(
                msgspec.structs.replace(
                    tool, name=name, description=description or tool.description
                )
            )
            about = ""

    def _web_search(self, tool: _Tool, path: str) -> None:
        if tool.external_web_access is False:
            # What was found before is searched there, not the web; the upstream has only the web.
            self._offline = True
            self._ignored.append(f"{path}.{_spelled(tool.type)}")
        else:
            self._search = True
            self._ignored += (f"{path}.{name}" for name in _WISHES if asks(getattr(tool, name)))


_WISHES = ("filters", "search_context_size", "user_location")


def _read_own(tool: _Tool, path: str) -> Tool:
    """A tool that the caller executes."""
    if tool.type == "custom":
        return read_custom(tool.name, tool.description, tool.format, path)
    if tool.type != "function":
        raise BadRequest(f"{path}.type: expected function or custom", param=f"{path}.type")
    return read_function(tool.name, tool.description, tool.parameters, path)


def _whole_name(namespace: str | None, name: str) -> str:
    return f"{namespace}.{name}" if namespace else name


def _choose(offered: _Offered, given: str | _Choice) -> _Offered:
    replace, path = msgspec.structs.replace, "tool_choice"
    if isinstance(given, _Choice) and given.type == "allowed_tools":
        allowed = {_whole_name(choice.namespace, choice.name) for choice in given.tools or ()}
        offered = replace(
            offered,
            tools=tuple(tool for tool in offered.tools if tool.name in allowed),
            search=offered.search and any(_is_search(choice.type) for choice in given.tools or ()),
        )
        given = given.mode
    if isinstance(given, _Choice):
        if given.type in ("function", "custom"):
            name = _whole_name(given.namespace, given.name)
            return replace(offered, choice=choose_named(offered.tools, name, path))
        if _is_search(given.type) and offered.search:
            return replace(offered, choice=ToolChoice("none" if offered.tools else "auto"))
        raise BadRequest(f"{path}: {_spelled(given.type)} isn't a tool that runs here", param=path)
    if given == "required" and offered.search and not offered.tools:
        return offered
    choice = choose_mode(offered.tools, given, path)
    return replace(offered, choice=choice, search=offered.search and given != "none")


def _is_search(kind: str) -> bool:
    return kind.startswith("web_search")


def _spelled(kind: str) -> str:
    """A caller's word as it may stand in a header."""
    return re.sub(r"[^\w.:-]", "?", kind[:64], flags=re.ASCII)
