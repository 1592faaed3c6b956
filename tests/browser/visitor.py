"""Somebody with an account in front of a browser window."""

import os
import re
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext, Page

from tests.cluster import Cluster, Person
from tests.webui import WebUi, sign_in

SHOTS = os.environ.get("BROWSER_SHOTS")
"""A folder: scenes leave screenshots there, for people to look at."""


class Visitor:
    """A person, their window, and the WebUI in its first tab."""

    def __init__(self, cluster: Cluster, person: Person, context: BrowserContext, page: Page) -> None:
        self.cluster = cluster
        self.person = person
        self.context = context
        self.page = page
        self.webui = WebUi(page)

    async def sign_in(self) -> None:
        """Through the form; ends on the home page."""
        await sign_in(self.page, self.cluster.url, self.person.name, self.person.password)
        await self.page.wait_for_url(f"{self.cluster.url}/cluster/")

    async def open(self) -> WebUi:
        """From the home page into the workspace."""
        await self.page.goto(f"{self.cluster.url}/cluster/")
        await self.page.get_by_role("link", name="Open my workspace").click()
        await self.webui.ready()
        return self.webui

    async def get(self, path: str) -> Any:
        """JSON as this browser gets it."""
        answer = await self.page.request.get(self.cluster.url + path)
        assert answer.ok, (path, answer.status)
        return await answer.json()

    async def status(self, path: str) -> int:
        """Status as this browser gets it."""
        return (await self.page.request.get(self.cluster.url + path)).status

    async def show_cluster_tab(self) -> None:
        """Open the sidebar tab of the cluster."""
        await self.page.get_by_label("Your jobs in the cluster", exact=True).first.click()
        await self.page.locator(".cluster-panel").wait_for()

    async def shot(self, scene: str) -> None:
        """A screenshot named after the runtime and the scene, where screenshots are wanted."""
        if SHOTS:
            runtime = re.search(r"\[([\w.-]+)", os.environ.get("PYTEST_CURRENT_TEST", ""))
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            await self.webui.screenshot(Path(SHOTS) / f"{runtime[1] if runtime else 'page'}-{scene}.png")

    def problems(self) -> list[str]:
        """What went wrong in the page so far."""
        return self.webui.problems

    async def leave(self) -> None:
        """End what runs, close the window."""
        await self.page.request.post(f"{self.cluster.url}/api/queue", data={"clear": True})
        await self.page.request.post(f"{self.cluster.url}/api/interrupt", data={})
        await self.context.close()
