"""`python -m tests.system.chaos [--minutes M] [--seed N] [--users U] [--postgres]`: a long trial.

Exit code 1 when something is wrong.
"""

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

from tests.system.chaos.trial import Plan, run


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="the same troubles and jobs again")
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL of its own, which suffers too")
    parser.add_argument("--keep", type=Path, help="an empty folder for data and logs; default: a temporary one")
    given = parser.parse_args()
    plan = Plan(given.seed, given.minutes * 60, given.users, pause_s=(0.2, 2.0), postgres=given.postgres)
    print(f"seed {plan.seed}", flush=True)
    if given.keep is not None:
        summary = asyncio.run(run(given.keep, plan))
    else:
        with tempfile.TemporaryDirectory(prefix="comfy-chaos-") as folder:
            summary = asyncio.run(run(Path(folder), plan))
    print(summary)
    return 1 if summary.findings.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
