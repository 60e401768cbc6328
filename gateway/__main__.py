"""`python -m gateway`"""

import sys

from gateway.auth import Authenticator
from gateway.server import serve
from shared.config import load_settings
from shared.errors import AppError
from shared.log import configure_logging


def main() -> None:
    try:
        settings = load_settings()
        Authenticator.from_settings(settings)
    except AppError as error:
        sys.exit(error.detail)
    configure_logging(settings.log, "gateway")
    serve(settings)


if __name__ == "__main__":
    main()
