"""What the extension in the WebUI says of jobs, in a real Chromium: words and order."""

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.chromium import launched

pytestmark = pytest.mark.browser
SCRIPT = Path(__file__).parents[2] / "templates" / "static" / "webui_outlook.js"
ASK = "async ([script, jobs]) => {const made = await import(script); return made.inLine(jobs).map(made.describe)}"


def queued(position: int | None, reason: str | None = None) -> dict[str, Any]:
    return {"state": "queued", "position": position, "reason": reason}


async def test_jobs_are_told_in_line() -> None:
    """Without "Waiting: waiting"."""
    script = "data:text/javascript;base64," + base64.b64encode(SCRIPT.read_bytes()).decode()
    jobs = [
        queued(None, "waiting for a backend that can run it"),
        queued(None),
        queued(12, "11 jobs ahead, the GPU is busy"),
        queued(2, "waiting for the only GPU with $& flux"),
        {"state": "running", "progress": 0.5},
        {"state": "collecting"},
    ]
    async with launched() as browser:
        page = await browser.new_page()
        assert await page.evaluate(ASK, [script, jobs]) == [
            "Running, 50 %",
            "Fetching pictures",
            "Waiting for the only GPU with $& flux, place 2 in line",
            "Waiting, place 12 in line: 11 jobs ahead, the GPU is busy",
            "Waiting for a backend that can run it",
            "Waiting",
        ]
