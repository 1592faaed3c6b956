"""Packs' extensions of the WebUI, in two people's browsers at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from playwright.async_api import expect

from tests import chromium
from tests.browser.graphs import Node, workflow
from tests.browser.visitor import Visitor
from tests.packs.conftest import Newcomer
from tests.packs.place import SHARING, STOCK

pytestmark = [pytest.mark.comfyui, pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
async def visitors(newcomer: Newcomer) -> AsyncIterator[list[Visitor]]:
    """Ann and Ben in their workspaces."""
    async with AsyncExitStack() as stack:
        browser = await stack.enter_async_context(chromium.launched())
        found = []
        for name in ("ann", "ben"):
            someone = await newcomer(name)
            context = await chromium.window(browser)
            found.append(Visitor(someone.cluster, someone.person, context, await chromium.tab(context)))
            await found[-1].sign_in()
            await found[-1].open()
        yield found
        for visitor in found:
            assert visitor.problems() == []
            await visitor.leave()


async def test_a_button_of_a_pack_shows_each_the_answer_of_their_own_session(visitors: list[Visitor]) -> None:
    ann, ben = visitors
    for visitor, times in ((ann, 2), (ben, 1)):
        for number in range(1, times + 1):
            await visitor.page.locator(".notebook-button").click()
            await expect(visitor.page.get_by_text(f"{number} notes, {number} calls")).to_be_visible()
        await visitor.shot(f"pack-{visitor.person.name.split('-')[0]}")
    assert len((await ann.get("/notebook/notes"))["notes"]) == 2


async def test_an_extension_hears_only_its_own_user_s_nodes(visitors: list[Visitor]) -> None:
    await asyncio.gather(*(_tell(visitor) for visitor in visitors))
    for visitor in visitors:
        told = [[kind, text] for text in _words(visitor) for kind in ("telling.you", "telling.all")]
        assert await visitor.page.evaluate("() => window.told") == told


def _words(visitor: Visitor) -> list[str]:
    return [f"{visitor.person.name} on {level.name}" for level in (STOCK, SHARING)]


async def _tell(visitor: Visitor) -> None:
    """Run a picture through the node that tells, on one backend and then on the other."""
    for level, text in zip((STOCK, SHARING), _words(visitor), strict=True):
        graph = workflow(
            Node("EmptyImage", (64, 64, 1, 255)),
            Node(level.marker, (), (("image", 1, 0),)),
            Node("Telling", (text,), (("image", 2, 0),)),
            Node("SaveImage", ("told",), (("images", 3, 0),), ()),
        )
        await visitor.webui.load(graph)
        await visitor.webui.run()
        await visitor.webui.picture()
