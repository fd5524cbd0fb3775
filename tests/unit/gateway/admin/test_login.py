"""Who counts as one sender of attempts, and the way back to the page that was asked for."""

import pytest

from gateway.admin.login import login_address, network_of


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
        ("a unix socket", "unknown"),
    ],
)
def test_one_sender_is_an_ipv4_address_or_an_ipv6_network(address: str, network: str) -> None:
    assert network_of(address) == network


def test_the_login_address_keeps_path_and_query() -> None:
    wanted = "/admin/accounts?state=dead&q=a%40b"
    assert login_address(wanted) == "/admin/login?next=/admin/accounts%3Fstate%3Ddead%26q%3Da%2540b"
