"""`python -m shared.db upgrade`: brings the SQL database's schema to this release's. Also `check`, `to REVISION`."""

import argparse
import asyncio
import sys

from shared.config import load_settings
from shared.db.engine import Database
from shared.db.schema import migrate_to, require_current, schema_state, upgrade
from shared.errors import AppError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m shared.db", description="The SQL database's schema.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("upgrade", help="to the schema of this release")
    commands.add_parser("check", help="fails unless it is that of this release")
    to = commands.add_parser("to", help="to another one; what only newer ones keep is lost")
    to.add_argument("revision", help="such as 0002; base is none at all")
    arguments = parser.parse_args()
    try:
        asyncio.run(_run(arguments))
    except AppError as error:
        sys.stderr.write(f"{error.detail}\n")
        return 1
    return 0


async def _run(arguments: argparse.Namespace) -> None:
    database = Database.from_settings(load_settings())
    try:
        match arguments.command:
            case "upgrade":
                await upgrade(database)
            case "to":
                await migrate_to(database, arguments.revision)
            case "check":
                await require_current(database)
        sys.stdout.write(f"schema: {await schema_state(database)}\n")
    finally:
        await database.close()


if __name__ == "__main__":
    sys.exit(main())
