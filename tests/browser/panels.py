"""The frontend's side panels, as version 1.58 draws them."""

from playwright.async_api import Locator, Page, Response

from tests.webui import WAIT_MS


class Assets:
    """The panel "Media Assets": what was generated, and what was uploaded."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def open(self, tab: str = "Generated") -> None:
        """Show one of its two tabs: "Generated" or "Imported"."""
        chosen = self.page.get_by_role("tab", name=tab)
        if not await chosen.is_visible():
            await self.page.get_by_test_id("assets-tab-button").first.click()
        await chosen.click(timeout=WAIT_MS)

    async def shows(self, filename: str) -> None:
        """Wait for the picture of a file."""
        await self._picture(filename).wait_for(timeout=WAIT_MS)

    async def delete(self, filename: str) -> Response:
        """Delete the job of that file through its menu; the server's answer."""
        await self._picture(filename).click(button="right")
        await self.page.get_by_role("menuitem", name="Delete").click()
        async with self.page.expect_response("**/api/history", timeout=WAIT_MS) as posted:
            await self.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        await self._picture(filename).wait_for(state="detached", timeout=WAIT_MS)
        return await posted.value

    def _picture(self, filename: str) -> Locator:
        return self.page.locator(f"[role=tabpanel] img[src*='filename={filename}']").first


async def models_listed(page: Page, folder: str) -> list[str]:
    """Open a folder of the model library; the names it lists."""
    await page.get_by_test_id("model-library-tab-button").first.click()
    async with page.expect_response(f"**/experiment/models/{folder}", timeout=WAIT_MS) as answered:
        await page.get_by_text(folder, exact=True).first.click()
    await (await answered.value).finished()
    leaves = page.locator(f"[data-testid^='tree-node-root/{folder}/']")
    await leaves.first.wait_for(timeout=WAIT_MS)
    return await leaves.all_inner_texts()
