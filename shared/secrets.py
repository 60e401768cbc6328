"""Secrets in text: how it names them, and how they are hidden from people and machines that will read it."""

import re

MASK = "****"
VARIABLE = re.compile(r"\$\{(\w+)\}")
"""Stands for a variable of the worker's environment, in what tools and MCP servers send."""

_SECRETS = re.compile(
    r"""
      \b(?P<key>tl_|sk-)[A-Za-z0-9_-]{8,}                            # our API keys, and those of most model providers
    | \b(?P<known>gsk_|xai-|AIza|pplx-|nvapi-|hf_|r8_|e2b_|dtn_      # those of others, of sandbox providers,
        |gh[oprsu]_|github_pat_|glpat-|AKIA|ASIA)[A-Za-z0-9_-]{16,}  # of code hosts and clouds
    | (?P<bearer>\bBearer\s+)[^\s"',]+                               # an Authorization header
    | (?P<user>://)(?:[^:/?\#\s"']*:[^\s"']*|[^:/?\#\s"'@]+)(?=@)    # user and password in an URL, up to the last @
    | (?P<parameter>[?&](?:ticket|token|key|api_key)=)[^&\s"']+      # a secret in an URL's query
    """,
    re.VERBOSE | re.IGNORECASE,
)


def mask_secrets(text: str) -> str:
    """`text` with what looks like a secret replaced; its prefix stays, so that one can tell which it was."""
    return _SECRETS.sub(lambda match: match[match.lastgroup or 0] + MASK, text)
