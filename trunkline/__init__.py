"""The client library and the command line of Trunkline. Talks HTTP only."""

from trunkline.client import Client
from trunkline.errors import APIError, ConnectionLostError, NotFoundError, TrunklineError
from trunkline.models import Event, Run, Thread
from trunkline.stream import EventStream

__all__ = [
    "APIError",
    "Client",
    "ConnectionLostError",
    "Event",
    "EventStream",
    "NotFoundError",
    "Run",
    "Thread",
    "TrunklineError",
]
