"""LangChain's ChatOpenAI, as its own Python runs it: prints results as one line of JSON."""

import asyncio
import json
import sys
from typing import Any

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

BASE_URL, KEY = sys.argv[1:3]


class Invoice(BaseModel):
    """What is to be paid to whom."""

    number: int
    payee: str


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"21 °C in {city}"


def chat(model: str, **more: Any) -> ChatOpenAI:
    """A chat model behind the proxy."""
    return ChatOpenAI(model=model, base_url=BASE_URL, api_key=KEY, max_retries=0, **more)


async def main() -> None:
    """Use what an application uses."""
    results: dict[str, Any] = {}
    for model in ("gemma3-270m", "gpt-4o", "fakellm-1", "aimock-1"):
        question = "What is the capital of France? Grüße"
        streamed = [chunk.text for chunk in chat(model).stream(question)]
        results[model] = {
            "whole": chat(model).invoke(question).text,
            "async": (await chat(model).ainvoke(question)).text,
            "streamed": "".join(streamed),
            "chunks": len(streamed),
        }
    called = chat("gpt-4o").bind_tools([get_weather]).invoke("How is the weather in Paris?")
    results["tools"] = [get_weather.invoke(call["args"]) for call in called.tool_calls]
    parsed = chat("gpt-4o").with_structured_output(Invoice).invoke("Invoice 17, to be paid to Ada.")
    results["parsed"] = type(parsed).__name__
    whole = chat("gpt-4o", use_responses_api=True).invoke("What is the capital of France?")
    results["responses"] = whole.text
    embedder = OpenAIEmbeddings(
        model="text-embedding-3-small",
        base_url=BASE_URL,
        api_key=KEY,
        check_embedding_ctx_length=False,
    )
    results["embedded"] = [len(vector) for vector in embedder.embed_documents(["one", "two"])]
    sys.stdout.write(json.dumps(results) + "\n")


asyncio.run(main())
