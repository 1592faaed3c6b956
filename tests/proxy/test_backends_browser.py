"""A backend's card in a real Chromium: its menu, its labels, and that it fits a phone."""

import time

import pytest
from playwright.async_api import BrowserContext, expect
from sqlmodel import Session

from backend_pool.backends.health import Health
from backend_pool.backends.phase import ManagedState, Phase
from backend_pool.model import Backend, BackendMode
from tests.proxy.control_server import Server
from tests.proxy.signed_in_page import sign_in

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]
PROMPT = {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red fox"}}}
WAIT_MS = 20_000


async def peopled(server: Server) -> None:
    """Four backends: one at work until a deadline, one quarantined, one crashed, one asleep."""
    registry, pool = server.cluster.work.registry, server.cluster.work.pool
    for number, name in enumerate(("gpu-1", "gpu-2", "rack-7-with-a-very-long-name-indeed-it-is", "gpu-4"), 1):
        await registry.add(f"http://127.0.0.1:{number}", name, labels=["gpu=a100", "fast"] if number != 2 else [])

    def work(s: Session) -> None:
        first, second = s.get_one(Backend, 1), s.get_one(Backend, 2)
        first.mode, first.drain_by_ms, first.note = (
            BackendMode.DRAINING,
            int(time.time() * 1000) + 540_000,
            "new driver",
        )
        second.quarantine = "CUDA error: an illegal memory access was encountered " * 3
        second.quarantine_ms = int(time.time() * 1000) - 130_000
        for number in (3, 4):
            s.get_one(Backend, number).source = "agent"

    server.cluster.db.write_now(work)
    await pool.refresh()
    ann = await server.cluster.people.access.users.by_name("ann")
    assert ann is not None
    job = await server.running(await server.job(ann, PROMPT, "0123456789abcdef"), 1)
    at_work, suspicious, crashed, asleep = (pool.members[number] for number in (1, 2, 3, 4))
    at_work.health, at_work.job = Health.UP, job.key
    at_work.stats = {"devices": [{"name": "cuda:0 NVIDIA A100 80GB", "vram_total": 80 << 30, "vram_free": 31 << 30}]}
    at_work.warmth.ran(ann.key, "", ["checkpoints:flux1-dev.safetensors", "vae:ae.safetensors"], 80_000)
    suspicious.health, suspicious.failed = Health.QUARANTINED, 1
    crashed.managed = ManagedState(Phase.CRASHED, 1, "it ended with status 1", 3, int(time.time() * 1000) + 30_000)
    asleep.managed, asleep.health = ManagedState(Phase.ASLEEP, 1), Health.ASLEEP


async def test_a_card_is_worked_with(server: Server, context: BrowserContext) -> None:
    await peopled(server)
    page = await sign_in(context, server, "root")
    await page.goto(f"{server.url}/cluster/admin/")
    card = page.get_by_role("listitem").filter(has_text="gpu-2")
    await card.get_by_role("button", name="Trust again").click()
    await expect(page.get_by_text("Give gpu-2 jobs again without a trial?")).to_be_visible()
    await page.locator("#ask").get_by_role("button", name="Trust again").click()
    await expect(card.get_by_role("button", name="Trust again")).to_be_hidden(timeout=WAIT_MS)

    await card.get_by_text("Labels and note").click()
    await card.get_by_label("Add labels").fill("gpu=h100, slow")
    await card.get_by_label("Add labels").press("Enter")
    await expect(card.get_by_text("gpu=h100", exact=True)).to_be_visible(timeout=WAIT_MS)
    await card.get_by_text("Labels and note").click()
    await card.get_by_role("button", name="Take the label slow off gpu-2").click()
    await expect(card.get_by_text("slow", exact=True)).to_be_hidden(timeout=WAIT_MS)

    await card.get_by_label("More actions for gpu-2").click()
    await card.get_by_role("button", name="Drain within 10 minutes").click()
    await page.get_by_role("button", name="Leave as is").click()
    row = (await server.cluster.work.registry.listing())[1]
    assert (row.mode, row.labels) == (BackendMode.ACTIVE, ["gpu=h100"]), "nothing without a yes"
    await card.get_by_label("More actions for gpu-2").click()
    await card.get_by_role("button", name="Drain within 10 minutes").click()
    await page.locator("#ask").get_by_role("button", name="Drain within 10 minutes").click()
    await expect(card.get_by_text("empty, can be stopped")).to_be_visible(timeout=WAIT_MS)

    await page.get_by_role("button", name="Restart one by one").click()
    await page.locator("#ask").get_by_role("button", name="Restart one by one").click()
    await expect(page.get_by_text("Still to restart: rack-7")).to_be_visible(timeout=WAIT_MS)
    await page.close()


async def test_cards_and_stories_fit_a_phone(server: Server, context: BrowserContext) -> None:
    await peopled(server)
    page = await sign_in(context, server, "root")
    for width, height in ((390, 844), (1280, 800)):
        await page.set_viewport_size({"width": width, "height": height})
        for path in ("/cluster/admin/", "/cluster/admin/jobs/1"):
            await page.goto(server.url + path)
            for edit in await page.get_by_text("Labels and note").all():
                await edit.click()
            assert await page.evaluate("document.documentElement.scrollWidth") <= width, path
    await page.close()
