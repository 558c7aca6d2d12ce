"""An application: it asks its sidecar five times a second, and tells each second how that went.

It knows one address, which the sidecar's injection has put into its environment.
"""

import collections
import json
import os
import time
import urllib.error
import urllib.request

URL = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
BODY = json.dumps(
    {
        "model": "tour-model",
        "stream": True,
        "messages": [{"role": "user", "content": "Hello"}],
    }
).encode()


def ask() -> str:
    """Who answered, or why nobody did."""
    request = urllib.request.Request(URL, BODY, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()
            return str(answer.headers["X-Nexus-Backend"])
    except urllib.error.HTTPError as error:
        return f"error {error.code}"
    except OSError as error:
        return f"error {error}"


def main() -> None:
    """Until it is stopped."""
    seen: collections.Counter[str] = collections.Counter()
    while True:
        for _ in range(5):
            seen[ask()] += 1
            time.sleep(0.2)
        print(", ".join(f"{who}: {number}" for who, number in sorted(seen.items())))


if __name__ == "__main__":
    main()
