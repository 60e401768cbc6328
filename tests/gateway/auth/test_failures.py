"""Whom refused credentials count for."""

import pytest

from gateway.auth.failures import network_of


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1::7", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("a-name-and-no-address" * 9, ("a-name-and-no-address" * 9)[:64]),
    ],
)
def test_an_address_is_counted_as_its_customer(host: str, counted: str) -> None:
    """As a server that listens to both kinds sees IPv4 clients, too: all of them are not one neighbourhood."""
    assert network_of(host) == counted
