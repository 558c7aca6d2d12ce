"""Bodies of an OpenAI-compatible API: whole answers, model lists, embeddings and errors.

Promises: shapes that the official client accepts, openly marked as simulated. It is NOT a model:
the text is fixed, and token counts are counts of words.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
FINGERPRINT = "simulated"
_SENTENCE = ("This", "answer", "is", "simulated:", "no", "language", "model", "was", "asked.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is to be said to one request."""

    number: int
    backend: str
    model: str
    created: int
    words: tuple[str, ...]
    prompt_tokens: int
    finish_reason: str

    @property
    def text(self) -> str:
        """The whole answer."""
        return "".join(self.words)


def compose(
    request: Mapping[str, Any], *, number: int, backend: str, created: int, tokens: int
) -> Answer:
    """The answer to a decoded request, cut to the number of tokens it asks for."""
    limits = (request.get(key) for key in ("max_completion_tokens", "max_tokens"))
    asked = [n for n in (*limits, request.get("max_output_tokens")) if isinstance(n, int) and n > 0]
    count = min([tokens, *asked])
    words = tuple(("" if i == 0 else " ") + _SENTENCE[i % len(_SENTENCE)] for i in range(count))
    prompt = request.get("messages", request.get("prompt", request.get("input", "")))
    return Answer(
        number=number,
        backend=backend,
        model=str(request["model"]),
        created=created,
        words=words,
        prompt_tokens=len(str(prompt).split()),
        finish_reason="length" if count < tokens else "stop",
    )


def usage(answer: Answer) -> Json:
    """Token counts as chat and completions give them."""
    spoken = len(answer.words)
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": spoken,
        "total_tokens": answer.prompt_tokens + spoken,
    }


def chat(answer: Answer) -> Json:
    """A whole ``chat.completion``."""
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": answer.finish_reason,
    }
    return _envelope(answer, "chatcmpl", "chat.completion", choice) | {"usage": usage(answer)}


def completion(answer: Answer) -> Json:
    """A whole ``text_completion``."""
    choice = {
        "index": 0,
        "text": answer.text,
        "logprobs": None,
        "finish_reason": answer.finish_reason,
    }
    return _envelope(answer, "cmpl", "text_completion", choice) | {"usage": usage(answer)}


def _envelope(answer: Answer, prefix: str, kind: str, choice: Json) -> Json:
    return {
        "id": f"{prefix}-{answer.backend}-{answer.number}",
        "object": kind,
        "created": answer.created,
        "model": answer.model,
        "system_fingerprint": FINGERPRINT,
        "choices": [choice],
    }


def response(answer: Answer, *, status: str = "completed", with_output: bool = True) -> Json:
    """A ``response`` object of the Responses API, in the given state."""
    spoken = len(answer.words)
    done = status == "completed"
    return {
        "id": f"resp_{answer.backend}_{answer.number}",
        "object": "response",
        "created_at": answer.created,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {"system_fingerprint": FINGERPRINT},
        "model": answer.model,
        "output": [message_item(answer, status=status)] if with_output else [],
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": {
            "input_tokens": answer.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": spoken,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": answer.prompt_tokens + spoken,
        }
        if done
        else None,
    }


def message_item(answer: Answer, *, status: str) -> Json:
    """The one output item of a response; without content until it is completed."""
    return {
        "id": f"msg_{answer.backend}_{answer.number}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [text_part(answer.text)] if status == "completed" else [],
    }


def text_part(text: str) -> Json:
    """An ``output_text`` content part."""
    return {"type": "output_text", "text": text, "annotations": []}


def models(names: Sequence[str], *, created: int) -> Json:
    """The list of ``GET /v1/models``."""
    return {"object": "list", "data": [model(name, created=created) for name in names]}


def model(name: str, *, created: int) -> Json:
    """One entry of the list."""
    return {"id": name, "object": "model", "created": created, "owned_by": "simulated"}


def embeddings(request: Mapping[str, Any]) -> Json:
    """Unit vectors that depend on the input alone, as floats or as base64 of little-endian f32."""
    given = request.get("input", "")
    inputs = [given] if isinstance(given, str) or not _is_batch(given) else list(given)
    size = request.get("dimensions")
    dimensions = size if isinstance(size, int) and size > 0 else 8
    encode = _as_base64 if request.get("encoding_format") == "base64" else list
    data = [
        {"object": "embedding", "index": i, "embedding": encode(_vector(str(text), dimensions))}
        for i, text in enumerate(inputs)
    ]
    count = sum(len(str(text).split()) for text in inputs)
    return {
        "object": "list",
        "model": str(request["model"]),
        "data": data,
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }


def _is_batch(given: object) -> bool:
    return isinstance(given, list) and bool(given) and not isinstance(given[0], int)


def _vector(text: str, dimensions: int) -> list[float]:
    digest = hashlib.shake_256(text.encode()).digest(dimensions)
    raw = [byte - 127.5 for byte in digest]
    length = math.sqrt(sum(value * value for value in raw))
    return [value / length for value in raw]


def _as_base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def error(message: str, *, kind: str = "server_error", code: str | None = None) -> Json:
    """The OpenAI error envelope."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
