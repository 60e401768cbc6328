"""The client library and the command line of Trunkline. Talks HTTP only.

with Trunkline("http://127.0.0.1:8000", key) as trunkline:
    thread = trunkline.threads.initiate()
    run = trunkline.threads.execute(thread.id, "Write fizzbuzz.py and run it")
    for event in trunkline.runs.follow(run.id):
        print(event.type, event.data)
"""

from trunkline.aio.client import AsyncTrunkline
from trunkline.aio.http import AsyncPages
from trunkline.aio.stream import AsyncEventStream
from trunkline.deltas import Delta
from trunkline.errors import (
    APIError,
    Conflict,
    ConnectionLost,
    Forbidden,
    IdempotencyConflict,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    PreconditionFailed,
    RateLimited,
    RunFailed,
    ServerNotFound,
    TrunklineError,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
)
from trunkline.models import Event, Run, Step, Thread
from trunkline.retries import Retry
from trunkline.sync.client import Trunkline
from trunkline.sync.http import Pages
from trunkline.sync.stream import EventStream

__all__ = [
    "APIError",
    "AsyncEventStream",
    "AsyncPages",
    "AsyncTrunkline",
    "Conflict",
    "ConnectionLost",
    "Delta",
    "Event",
    "EventStream",
    "Forbidden",
    "IdempotencyConflict",
    "InvalidRequest",
    "NotFound",
    "Pages",
    "PayloadTooLarge",
    "PreconditionFailed",
    "RateLimited",
    "Retry",
    "Run",
    "RunFailed",
    "ServerNotFound",
    "Step",
    "Thread",
    "Trunkline",
    "TrunklineError",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
]
