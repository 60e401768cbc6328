"""Who calls: an API key, a JWT, the cookie of somebody who followed the printed link, or a stream ticket."""

from gateway.auth.authenticator import SESSION_SECONDS, Authenticator, credentials_ended, settings_keys
from gateway.auth.pages import is_local_name
from gateway.auth.principal import DEFAULT_WORKSPACE, Principal

__all__ = [
    "DEFAULT_WORKSPACE",
    "SESSION_SECONDS",
    "Authenticator",
    "Principal",
    "credentials_ended",
    "is_local_name",
    "settings_keys",
]
