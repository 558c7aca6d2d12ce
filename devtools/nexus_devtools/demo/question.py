"""Asks the real model something through a proxy, with the official client.

Promises: question, answer and the header that names the backend, as a user would see them. It is
NOT retried here: a failure is an answer that was not given.
"""

from __future__ import annotations

import time

from openai import AsyncOpenAI, OpenAIError

from nexus_devtools.backends.weights import MODEL_NAME
from nexus_devtools.demo.measure import Answer


async def ask(proxy_url: str, question: str) -> Answer | str:
    """The answer, or one line that says why there is none."""
    try:
        async with AsyncOpenAI(
            base_url=f"{proxy_url}/v1", api_key="unused", max_retries=0, timeout=30
        ) as client:
            # The first use of a resource imports it: that is not the model's time.
            create = client.chat.completions.with_raw_response.create
            began = time.monotonic()
            raw = await create(model=MODEL_NAME, messages=[{"role": "user", "content": question}])
            seconds = time.monotonic() - began
    except OpenAIError as error:
        return f"{type(error).__name__}: {error}"
    message = raw.parse().choices[0].message.content or ""
    return Answer(
        question=question,
        text=message.strip(),
        backend=raw.headers.get("x-nexus-backend"),
        seconds=seconds,
    )
