"""Where requests on a model's behalf may not go, however the address is written."""

import pytest

from shared.net.addresses import is_metadata, is_public
from shared.net.guard import Guard, Refused

PUBLIC = "93.184.215.14"

FORBIDDEN_ADDRESSES = {
    "loopback": ["127.0.0.1", "127.8.9.1", "::1"],
    "unspecified": ["0.0.0.0", "0.1.2.3", "::"],
    "link-local": ["169.254.1.1", "fe80::1", "fe80::1%eth0"],
    "metadata": ["169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd12:3456::1", "fec0::1"],
    "shared": ["100.64.0.1", "100.127.255.255"],
    "multicast and reserved": ["224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "ff02::1", "ff0e::1"],
    "documentation and tests": ["192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "2001:db8::1"],
    "IPv4-mapped": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:7f00:1"],
    "IPv4-compatible": ["::127.0.0.1", "::a00:1"],
    "IPv4-translated": ["::ffff:0:127.0.0.1"],
    "NAT64": ["64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::10.0.0.1"],
    "6to4": ["2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::"],
    "Teredo": ["2001:0:7f00:1::1", "2001:0:4136:e378:8000:63bf:80ff:fffe"],
}
FORBIDDEN = [(kind, address) for kind, addresses in FORBIDDEN_ADDRESSES.items() for address in addresses]


class Names:
    """A resolver double. Each name has a list of answers; the last one is repeated."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): list(answer) for name, answer in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        answers = self.answers[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]


def wide(text: str) -> str:
    """In the full-width characters that IDNA takes for the plain ones."""
    return "".join(char if char == "." else chr(ord(char) + 0xFEE0) for char in text)


@pytest.mark.parametrize(("kind", "address"), FORBIDDEN)
async def test_a_name_with_such_an_address_is_refused(kind: str, address: str) -> None:
    assert not is_public(address)
    with pytest.raises(Refused, match="not on the public internet"):
        await Guard(resolve=Names(evil_test=[[address]])).check("http://evil.test/")


@pytest.mark.parametrize(("kind", "address"), [pair for pair in FORBIDDEN if "%" not in pair[1]])
async def test_such_an_address_is_refused_as_it_stands(kind: str, address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(Refused):
        await Guard().check(f"https://{host}/latest/meta-data/")


@pytest.mark.parametrize(
    "host",
    [
        *("2130706433", "0x7f000001", "017700000001"),  # 127.0.0.1 as one number
        *("0177.0.0.1", "127.0.0.01", "0x7f.0.0.1", "127.0.0.0x1", "127.1", "127.0.1", "0", "0x", "127.0.0.1."),
        *("2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518"),  # 169.254.169.254
        *("134744072", "010.010.010.010"),  # a public address, in disguise all the same
        *(wide("127.0.0.1"), "127。0。0。1", "①②⑦.⓪.⓪.①"),
    ],
)
async def test_an_address_in_disguise_is_refused(host: str) -> None:
    with pytest.raises(Refused):
        await Guard().check(f"http://{host}/")


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST", "localhost.", "localhost..", "a.localhost", "localhost.localdomain", "nas.local"),
        *("metadata.google.internal", "METADATA.google.internal.", "metadata", "metadata.goog", "instance-data"),
        *("db.internal", "router.home.arpa", wide("localhost")),
    ],
)
async def test_a_private_name_is_refused_without_being_resolved(host: str) -> None:
    names = Names()
    with pytest.raises(Refused):
        await Guard(resolve=names).check(f"http://{host}/")
    assert names.asked == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://example.com/", "only http:// and https://"),
        ("file:///etc/passwd", "only http:// and https://"),
        ("gopher://example.com/", "only http:// and https://"),
        ("example.com", "only http:// and https://"),
        ("", "only http:// and https://"),
        ("http:///path", "names no host"),
        ("http://user@example.com/", "user name or password"),
        ("http://:secret@example.com/", "user name or password"),
        ("http://example.com:22/", "port 22 is not allowed"),
        ("https://example.com:6379/", "port 6379 is not allowed"),
        ("http://exa mple.com/", "names no host"),
        ("http://[::1", "no valid URL"),
        ("http://example.com:99999/", "port 99999 is not allowed"),
        ("http://exam\tple.com/", "no valid URL"),
    ],
)
async def test_an_url_of_another_kind_is_refused(url: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        await Guard(resolve=Names(example_com=[[PUBLIC]])).check(url)


@pytest.mark.parametrize(
    "url",
    [
        *("http://example.com", "https://example.com:443/a?b=c#d", "http://EXAMPLE.com.:80/"),
        f"http://{PUBLIC}/",
        "http://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/",
    ],
)
async def test_the_public_internet_is_allowed(url: str) -> None:
    address = "2606:2800:21f:cb07:6820:80da:af6b:8b2c" if "[" in url else PUBLIC
    names = Names(example_com=[[address]], **{PUBLIC: [[address]], address: [[address]]})
    assert (await Guard(resolve=names).check(url)).addresses == [address]


async def test_a_public_address_carried_by_another_one_is_public() -> None:
    assert is_public(f"::ffff:{PUBLIC}")
    assert is_public("64:ff9b::5db8:d70e")


async def test_one_private_address_among_public_ones_is_enough() -> None:
    with pytest.raises(Refused, match=r"10\.0\.0\.1"):
        await Guard(resolve=Names(mixed_test=[[PUBLIC, "10.0.0.1"]])).check("http://mixed.test/")


async def test_further_ports_can_be_allowed() -> None:
    guard = Guard(ports=[8443], resolve=Names(example_com=[[PUBLIC]]))
    assert (await guard.check("https://example.com:8443/")).host == "example.com"
    with pytest.raises(Refused, match="only 80, 443, 8443 are"):
        await guard.check("https://example.com:8444/")


async def test_a_listed_host_may_be_private_at_its_port_only() -> None:
    names = Names(search_lan=[["10.0.0.7"]], other_lan=[["10.0.0.7"]])
    guard = Guard(private_hosts=["search.lan:8080", "192.168.1.5", "[fd00::5]:9000", "localhost:1"], resolve=names)
    assert (await guard.check("http://Search.LAN:8080/search")).addresses == ["10.0.0.7"]
    for url in ("http://search.lan/", "http://other.lan/", "http://other.lan:8080/", "http://10.0.0.7:8080/"):
        names.answers["10.0.0.7"] = [["10.0.0.7"]]
        with pytest.raises(Refused):
            await guard.check(url)


async def test_a_listed_address_may_be_private() -> None:
    guard = Guard(private_hosts=["192.168.1.5", "[fd00::5]:9000", "localhost:8000"])
    assert (await guard.check("http://192.168.1.5/")).addresses == ["192.168.1.5"]
    assert (await guard.check("http://[fd00::5]:9000/")).addresses == ["fd00::5"]
    assert (await guard.check("http://localhost:8000/")).host == "localhost"


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "fd00:ec2::254", "::ffff:169.254.169.254"])
async def test_a_listed_host_never_is_a_metadata_service(address: str) -> None:
    assert is_metadata(address)
    hosts = ["search.lan", "169.254.169.254", "metadata"]
    guard = Guard(private_hosts=hosts, resolve=Names(search_lan=[[address]], **{"169.254.169.254": [[address]]}))
    for host in hosts:
        with pytest.raises(Refused):
            await guard.check(f"http://{host}/")


async def test_a_name_without_an_address_is_an_error_of_its_own() -> None:
    with pytest.raises(OSError, match="has no address"):
        await Guard(resolve=Names(gone_test=[[]])).check("http://gone.test/")
    with pytest.raises(OSError):
        await Guard().check("http://no-such-host.invalid/")
