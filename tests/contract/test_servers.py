"""Says once whether a real ComfyUI took part in this run of the contract."""

import pytest

from tests.real_comfyui import WHY_SKIPPED, configured


@pytest.mark.comfyui
def test_a_real_comfyui_takes_part() -> None:
    if not configured():
        pytest.skip(WHY_SKIPPED)
