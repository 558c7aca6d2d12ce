"""Server-sent events of an OpenAI-compatible API, encoded and in order.

Promises: for each API the events as the real one sends them, split into what precedes the first
token, one event per token, and what follows the last. It is NOT concerned with time or faults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from nexus_devtools.backends import answers
from nexus_devtools.backends.answers import Answer, Json

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Stream:
    """A whole stream: each element is one complete event, blank line included."""

    preamble: tuple[bytes, ...]
    content: tuple[bytes, ...]
    ending: tuple[bytes, ...]


def data_event(payload: Json) -> bytes:
    """A ``data:`` event."""
    return b"data: " + msgspec.json.encode(payload) + b"\n\n"


def chat(answer: Answer, request: Mapping[str, Any]) -> Stream:
    """``chat.completion.chunk`` events: role, one delta per token, finish, usage, ``[DONE]``."""
    chunks = _Chunks(answer, request, prefix="chatcmpl", kind="chat.completion.chunk")
    return Stream(
        preamble=(chunks.event(_delta({"role": "assistant", "content": ""})),),
        content=tuple(chunks.event(_delta({"content": word})) for word in answer.words),
        ending=(
            chunks.event(_delta({}, finish=answer.finish_reason)),
            *chunks.usage(),
            DONE,
        ),
    )


def completion(answer: Answer, request: Mapping[str, Any]) -> Stream:
    """``text_completion`` events: one per token, finish, usage, ``[DONE]``."""
    chunks = _Chunks(answer, request, prefix="cmpl", kind="text_completion")
    return Stream(
        preamble=(),
        content=tuple(chunks.event(_text(word)) for word in answer.words),
        ending=(chunks.event(_text("", finish=answer.finish_reason)), *chunks.usage(), DONE),
    )


def _delta(delta: Json, *, finish: str | None = None) -> Json:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _text(text: str, *, finish: str | None = None) -> Json:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}


class _Chunks:
    """The envelope that all chunks of one stream share."""

    def __init__(
        self, answer: Answer, request: Mapping[str, Any], *, prefix: str, kind: str
    ) -> None:
        options = request.get("stream_options")
        self._answer = answer
        self._with_usage = isinstance(options, Mapping) and bool(options.get("include_usage"))
        self._head: Json = {
            "id": f"{prefix}-{answer.backend}-{answer.number}",
            "object": kind,
            "created": answer.created,
            "model": answer.model,
            "system_fingerprint": answers.FINGERPRINT,
        }

    def event(self, *choices: Json) -> bytes:
        tail: Json = {"usage": None} if self._with_usage else {}
        return data_event(self._head | {"choices": list(choices)} | tail)

    def usage(self) -> Sequence[bytes]:
        if not self._with_usage:
            return ()
        tail = {"choices": [], "usage": answers.usage(self._answer)}
        return (data_event(self._head | tail),)


def response(answer: Answer, request: Mapping[str, Any]) -> Stream:
    """Typed events of the Responses API, numbered; it has no ``[DONE]``."""
    item = f"msg_{answer.backend}_{answer.number}"
    place: Json = {"item_id": item, "output_index": 0, "content_index": 0}
    begun = answers.response(answer, status="in_progress", with_output=False)
    part = answers.text_part(answer.text)
    preamble: list[tuple[str, Json]] = [
        ("response.created", {"response": begun}),
        ("response.in_progress", {"response": begun}),
        ("response.output_item.added", _item(answer, status="in_progress")),
        ("response.content_part.added", place | {"part": answers.text_part("")}),
    ]
    content: list[tuple[str, Json]] = [
        ("response.output_text.delta", place | {"delta": word, "logprobs": []})
        for word in answer.words
    ]
    ending: list[tuple[str, Json]] = [
        ("response.output_text.done", place | {"text": answer.text, "logprobs": []}),
        ("response.content_part.done", place | {"part": part}),
        ("response.output_item.done", _item(answer, status="completed")),
        ("response.completed", {"response": answers.response(answer)}),
    ]
    first, last = len(preamble), len(preamble) + len(content)
    return Stream(_numbered(preamble, 0), _numbered(content, first), _numbered(ending, last))


def _item(answer: Answer, *, status: str) -> Json:
    return {"output_index": 0, "item": answers.message_item(answer, status=status)}


def _numbered(events: Sequence[tuple[str, Json]], start: int) -> tuple[bytes, ...]:
    return tuple(
        f"event: {kind}\n".encode()
        + data_event({"type": kind, "sequence_number": start + i} | payload)
        for i, (kind, payload) in enumerate(events)
    )
