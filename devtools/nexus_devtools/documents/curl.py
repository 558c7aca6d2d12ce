"""`curl [-fsS] URL [-d BODY]` for machines without curl: as much of it as the pages use.

Promises what `curl -fsS` does with one URL: the body on standard output, exit code 22 for an answer
of 400 or more. It is NOT put in the place of a curl there is.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import httpx

REFUSED = 22


def main(arguments: list[str]) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="curl")
    for flag in ("-f", "-s", "-S"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("-d", dest="data")
    parser.add_argument("url")
    asked = parser.parse_args(arguments)
    method = "GET" if asked.data is None else "POST"
    answer = httpx.request(method, asked.url, content=asked.data, trust_env=False, timeout=30)
    if answer.is_error:
        print(f"curl: ({REFUSED}) {answer.status_code}", file=sys.stderr)
        return REFUSED
    print(answer.text)
    return 0


def folder_with_curl(folder: Path) -> Path:
    """A folder to search programs in: empty where there is a curl, else this one is in it."""
    made = folder / "programs"
    made.mkdir(exist_ok=True)
    if shutil.which("curl") is None:
        script = made / "curl"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -m {__spec__.name} "$@"\n')
        script.chmod(0o755)
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
