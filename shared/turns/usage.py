"""What a turn used: the upstream's numbers where it tells them, otherwise counted by us."""

import asyncio

from shared.chat.events import Usage
from shared.turns import tokens


async def usage_of(told: Usage | None, *, model: str, prompt: str, output: str) -> Usage:
    """`told` when it is whole; what it lacks is counted with the model's own vocabulary.

    Loading the vocabulary and counting long texts happen in a thread: the loop goes on.
    """
    if told is not None and told.input_tokens and told.output_tokens:
        return told
    told = told or Usage()
    return Usage(
        input_tokens=told.input_tokens or await count(prompt, model=model),
        output_tokens=told.output_tokens or await count(output, model=model),
        reasoning_tokens=told.reasoning_tokens,
        cached_tokens=told.cached_tokens,
        counted=True,
    )


async def count(text: str, *, model: str) -> int:
    if tokens.is_loaded(model) and len(text) <= tokens.LONG_TEXT_BYTES:
        return tokens.load(model).count(text)
    return await asyncio.to_thread(lambda: tokens.load(model).count(text))


async def ready_vocabulary(model: str) -> None:
    """Afterwards `tokens.load(model)` answers at once."""
    if not tokens.is_loaded(model):
        await asyncio.to_thread(tokens.load, model)
