"""Which IP addresses belong to the internet, and which to a machine, a network or a cloud provider."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

# Credentials are served there, to whoever asks: AWS (also ECS, EKS), Google, Azure, Alibaba, Oracle.
METADATA = frozenset(
    ip_address(text)
    for text in (
        *("169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
        *("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254"),
    )
)
SHARED = IPv4Network("100.64.0.0/10")
UNICAST = IPv6Network("2000::/3")  # all that IANA has given out of IPv6
NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are the IPv4 address


def is_metadata(text: str) -> bool:
    """Whether it is a metadata service, or link-local, where such services live: of no use to anybody else."""
    return any(address in METADATA or address.is_link_local for address in _meanings(text))


def is_public(text: str) -> bool:
    """Whether it is an address of the internet, and so is every IPv4 address that it carries."""
    return all(_is_public(address) for address in _meanings(text))


def _is_public(address: Address) -> bool:
    if address in METADATA or not address.is_global or address.is_multicast:
        return False
    return address in UNICAST if isinstance(address, IPv6Address) else address not in SHARED


def _meanings(text: str) -> list[Address]:
    """The addresses at which packets to it may arrive: itself, where it stands for no other, and what it carries."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address in NAT64:
        return [IPv4Address(int(address) & 0xFFFFFFFF)]
    return [address, *(address.teredo or ()), *([address.sixtofour] if address.sixtofour else [])]
