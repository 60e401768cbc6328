"""Hides secrets in text that people or machines will read: log lines, error messages, printed settings."""

import re

MASK = "****"

_SECRETS = re.compile(
    r"""
      \b(?P<key>tl_|sk-)[A-Za-z0-9_-]{8,}                            # our API keys, and those of most model providers
    | (?P<bearer>\bBearer\s+)[^\s"',]+                               # an Authorization header
    | (?P<user>://[^:/?\#\s"']*:)[^\s"']*(?=@)                       # a password in an URL, up to the last @
    | (?P<parameter>[?&](?:ticket|token|key|api_key)=)[^&\s"']+      # a secret in an URL's query
    """,
    re.VERBOSE | re.IGNORECASE,
)


def mask_secrets(text: str) -> str:
    """`text` with what looks like a secret replaced; its prefix stays, so that one can tell which it was."""
    return _SECRETS.sub(lambda match: match[match.lastgroup or 0] + MASK, text)
