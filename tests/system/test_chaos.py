"""A short trial by chaos: every trouble once, under load from twenty users. `make chaos` runs a long one."""

from pathlib import Path

import pytest

from tests.system.chaos.trial import Plan, run


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_no_trouble_loses_doubles_or_mixes_up_a_job(tmp_path: Path) -> None:
    plan = Plan(seed=7, pause_s=(0.05, 0.3), brief=True)
    summary = await run(tmp_path, plan)
    print(summary)
    assert summary.findings.wrong == [], str(summary)
    # Without troubles nothing is shown; on a slow machine some moments do not come.
    assert summary.missed.total() <= summary.strikes.total() / 2, str(summary)
    done = summary.findings.ends["succeeded"]
    assert done > plan.users and done > 0.8 * (summary.accepted - summary.findings.ends["cancelled while waiting"])
