"""How much of the audit log those may fill whom nobody knows: who sends no key, or a wrong one, pays nothing for it."""

from collections import Counter
from datetime import datetime, timedelta

from gateway.auth.failures import network_of
from shared.types import JSON

WINDOW = timedelta(minutes=1)
PER_ADDRESS = 10
"""Entries in a window of one address (of one network, of IPv6)."""
MOST_ADDRESSES = 1000
"""Addresses whose requests are counted for themselves."""
TOLD_ADDRESSES = 10


class Strangers:
    """`most`: their entries in a window."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._since: datetime | None = None
        self._let_in: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._others = 0

    def admit(self, address: str | None, at: datetime) -> bool:
        """Whether an entry is to be written. One that is not is counted."""
        self._since = self._since or at
        network = network_of(address or "unknown")
        if self._let_in.total() < self._most and self._let_in[network] < PER_ADDRESS:
            self._let_in[network] += 1
            return True
        if network in self._left_out or len(self._left_out) < MOST_ADDRESSES:
            self._left_out[network] += 1
        else:
            self._others += 1
        return False

    def told(self, now: datetime | None) -> JSON | None:
        """At a window's end, or for now None: what was left out in it, if anything was. The next window begins."""
        since = self._since
        if since is None or (now is not None and now < since + WINDOW):
            return None
        left_out, others = self._left_out, self._others
        self._since, self._let_in, self._left_out, self._others = None, Counter(), Counter(), 0
        if not left_out:
            return None
        most = [{"address": address, "left_out": count} for address, count in left_out.most_common(TOLD_ADDRESSES)]
        return {"left_out": left_out.total() + others, "since": f"{since:%Y-%m-%dT%H:%M:%SZ}", "most": most}
