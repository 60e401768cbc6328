"""`python -m tests.chaos --minutes N --seed S [--only N5,N6]`; scripts/chaos is its entry. Exit code 1: a violation."""

import argparse
import asyncio
import secrets
import signal
import sys

from tests.chaos.experiment import Plan, run
from tests.chaos.nemeses import NEMESES


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description="A fleet under load and faults, then checked.")
    parser.add_argument("--minutes", type=float, default=5, help="how long faults are brought (5)")
    parser.add_argument("--seed", type=int, help="makes the schedule; unset: a new one, which is printed")
    parser.add_argument("--only", default="", help=f"nemeses, of {','.join(NEMESES)}; unset: all at random (N14)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gateways", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=12, help="runs under way at the same time (12)")
    parser.add_argument("--no-sandbox", action="store_true", help="without the sandbox host and its commands")
    arguments = parser.parse_args()
    only = [name for name in arguments.only.split(",") if name and name != "N14"]
    if unknown := set(only) - set(NEMESES):
        parser.error(f"no such nemesis: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    plan = Plan(
        seed=secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed,
        seconds=arguments.minutes * 60,
        only=only,
        workers=arguments.workers,
        gateways=arguments.gateways,
        sandbox=not arguments.no_sandbox,
        at_once=arguments.at_once,
    )
    verdict = asyncio.run(run(plan))
    print(verdict)
    return 1 if verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
