"""A Chromium for the browser tests: the system's, else Playwright's own.

`python -m tests.chromium` installs one where there is none (Debian's package as root, else Playwright's) and prints its
path; tests themselves never install, they skip and say so.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, Dialog, Page, async_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
INSTALL_TIMEOUT_S = 900
WHY_SKIPPED = "no Chromium: `python -m tests.chromium` installs one, or name one in CHROMIUM"


def find() -> Path | None:
    """The browser named in CHROMIUM, one on the PATH, or the one Playwright has downloaded."""
    named = os.environ.get("CHROMIUM")
    if named:
        return Path(named)
    for program in PROGRAMS:
        path = shutil.which(program)
        if path:
            return Path(path)
    cache = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
    return next((path for path in sorted(cache.glob("chromium-*/chrome-linux*/chrome")) if path.is_file()), None)


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """A running headless browser; skips the test where there is none."""
    path = find()
    if path is None:
        pytest.skip(WHY_SKIPPED)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            await browser.close()


async def window(browser: Browser) -> BrowserContext:
    """A person's own browser window: cookies and storage shared with nobody."""
    return await browser.new_context(viewport={"width": 1400, "height": 900}, locale="en-US")


async def tab(context: BrowserContext) -> Page:
    """A page that lets itself be left: the WebUI asks before unloading an unsaved workflow."""
    page = await context.new_page()

    async def accept(dialog: Dialog) -> None:
        await dialog.accept()

    page.on("dialog", accept)
    return page


def install() -> Path | None:
    """Find a browser, or install one; None when neither worked."""
    attempts = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        # One shell-free command after the other: an old package list makes the install fail, not hang.
        attempts = [["apt-get", "update", "-q"], ["apt-get", "install", "-yq", "chromium"], *attempts]
    for command in attempts:
        if find() is None:
            try:
                subprocess.run(command, timeout=INSTALL_TIMEOUT_S, check=False, stdout=sys.stderr)
            except (OSError, subprocess.TimeoutExpired) as error:
                print(f"{command[0]}: {error}", file=sys.stderr)
    return find()


if __name__ == "__main__":
    print(install() or "No Chromium could be installed; browser tests will be skipped.")
