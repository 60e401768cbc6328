"""`python -m gateway`"""

import asyncio
import sys

from gateway.auth import settings_keys
from gateway.server import serve
from shared.config import load_settings
from shared.db.schema import check_at_start
from shared.errors import AppError
from shared.log import configure_logging
from shared.tracing import check_tracing


def main() -> None:
    try:
        settings = load_settings()
        settings_keys(settings)
        configure_logging(settings.log, "gateway")
        check_tracing(settings.tracing)
        asyncio.run(check_at_start(settings))
    except AppError as error:
        sys.exit(error.detail)
    serve(settings)


if __name__ == "__main__":
    main()
