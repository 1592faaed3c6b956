"""A person who signs in on the control pages, in a tab that tells of what its scripts do wrong."""

from playwright.async_api import BrowserContext, Page

from tests.proxy.control_server import PASSWORD, Server


async def sign_in(context: BrowserContext, server: Server, name: str) -> Page:
    """A new tab on that person's home; closing it fails where a script failed or the page's policy was broken."""
    page = await context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if "Content Security" in message.text else None)
    page.on("close", lambda _: _none(problems))
    await page.goto(f"{server.url}/cluster/login")
    await page.get_by_label("User name").fill(name)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{server.url}/cluster/")
    return page


def _none(problems: list[str]) -> None:
    assert problems == []
