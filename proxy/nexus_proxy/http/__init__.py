"""The byte path: HTTP/1.1 in, one attempt after another, HTTP/1.1 out, on raw asyncio protocols."""
