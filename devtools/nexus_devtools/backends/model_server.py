"""``python -m nexus_devtools.backends.model_server``: a real, small language model as a process.

Promises: llama.cpp's own OpenAI-compatible server on gemma3-270m; prints ``listening on
127.0.0.1:PORT`` once it accepts connections (503 until the model is loaded), serves until SIGTERM
or SIGINT, exits with 0. Questions in chat form get one-line answers: it is a base model, so the
chat template frames them as a text of questions and answers, and generation stops at a line's end.
It is NOT a good model: it is the smallest real one, for showing that real bytes flow.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from nexus_devtools.backends.weights import MODEL_NAME, PackagesMissingError, weights

_TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m nexus_devtools.backends.model_server")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a pod")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    options = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        server = _start(weights(), host=options.host, port=options.port)
    except PackagesMissingError as error:
        print(f"the model server cannot start: {error}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        print(
            f"the model server cannot start: {error} Is port {options.port} free?", file=sys.stderr
        )
        return 1
    print(f"listening on {server.listening_address.removeprefix('http://')}", flush=True)
    stop.wait()
    # llama.cpp stops its threads when the object goes.
    del server
    return 0


def _start(model: Path, *, host: str, port: int) -> Any:
    try:
        import xllamacpp
    except ModuleNotFoundError as error:
        raise PackagesMissingError(
            f"{error.name} is not installed: pip install --require-hashes -r requirements/demo.txt"
        ) from error
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {MODEL_NAME}
    params.hostnames = [host]
    params.port = port
    params.use_jinja = True
    params.chat_template = _TEMPLATE.read_text(encoding="utf-8")
    # What a request does not say: greedy, one line, short.
    params.sampling.temp = 0.0
    params.antiprompt = ["\n"]
    params.n_predict = 64
    params.n_parallel = 2
    params.n_ctx = 4096
    # llama.cpp's threads wait for each other spinning: on a machine that is busy, more are slower.
    params.cpuparams.n_threads = max(1, min(4, (os.cpu_count() or 1) // 2))
    params.cpuparams_batch.n_threads = params.cpuparams.n_threads
    params.ui = False
    params.endpoint_metrics = True
    params.verbosity = 1
    return xllamacpp.Server(params)


if __name__ == "__main__":
    sys.exit(main())
