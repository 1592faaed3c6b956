"""ComfyUI's own suite, `tests/execution`, run twice: against ComfyUI, and through the proxy over such a ComfyUI.

Takes a quarter of an hour on two cores.
"""

from pathlib import Path

import pytest

from tests.fidelity.differences import DIFFERENCES
from tests.fidelity.suite import TIMEOUT_S, counted, missing, run_suite

MANY = 200
"""Fewer would mean that the suite itself did not run."""


@pytest.mark.comfyui
@pytest.mark.slow
@pytest.mark.timeout(2 * TIMEOUT_S)
def test_what_passes_directly_passes_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    why = missing()
    if why is not None:
        pytest.skip(why)
    direct = run_suite("direct", tmp_path / "direct")
    through = run_suite("through", tmp_path / "through")
    with capsys.disabled():
        print(f"\ndirect: {counted(direct)}\nthrough: {counted(through)}")
    passed = {name for name, outcome in direct.items() if outcome == "passed"}
    assert len(passed) > MANY, (tmp_path / "direct" / "suite.log").read_text()[-4000:]
    lost = sorted(name for name in passed if through.get(name) != "passed")
    assert [name for name in lost if name.partition("[")[0] not in DIFFERENCES] == []
    assert DIFFERENCES.keys() <= {
        name.partition("[")[0] for name in lost
    }  # a difference that is gone goes from the list
