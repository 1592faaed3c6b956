"""The frontend's mask editor, both as versions 1.35 and 1.58 draw it."""

from playwright.async_api import Page, expect

from tests.webui import NODE, WAIT_MS

COMMAND = "Comfy.MaskEditor.OpenMaskEditor"
LAYERS = "#maskEditorCanvasContainer canvas"
PAINTED = """(layers) => {
  const mask = document.querySelectorAll(layers)[2]
  const pixels = mask.getContext('2d').getImageData(0, 0, mask.width, mask.height).data
  let painted = 0
  for (let at = 3; at < pixels.length; at += 4) painted += pixels[at] > 0
  return painted / (mask.width * mask.height)
}"""


class MaskEditor:
    """Opened on the picture of a node."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self._zone = page.locator("[class*='100%-4rem-220px']")  # between the tools; only 1.58 names it

    async def open(self, node_type: str) -> None:
        """Wait for the node's picture, select the node, open the editor on it."""
        shown = f"(type) => {{ {NODE} return node?.imgs?.[0]?.complete && node.imgs[0].naturalWidth > 0 }}"
        await self.page.wait_for_function(shown, arg=node_type, timeout=WAIT_MS)
        script = f"""(type) => {{ {NODE}
          window.app.canvas.selectNode(node)
          void window.app.extensionManager.command.execute('{COMMAND}')
        }}"""
        await self.page.evaluate(script, node_type)
        await self.page.get_by_text("Brush Settings").wait_for(timeout=WAIT_MS)

    async def stroke(self) -> None:
        """Paint from left to right through the middle."""
        box = await self._zone.bounding_box()
        assert box is not None
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        await self.page.mouse.move(middle[0] - 100, middle[1])
        await self.page.mouse.down()
        await self.page.mouse.move(middle[0] + 100, middle[1], steps=20)
        await self.page.mouse.up()
        # the brush follows in frames of its own
        await self.page.wait_for_function(f"(layers) => ({PAINTED})(layers) > 0.004", arg=LAYERS, timeout=WAIT_MS)

    async def save(self) -> None:
        """Save; ends when the editor has closed."""
        await self.page.get_by_role("button", name="Save").last.click()
        await expect(self.page.locator(LAYERS)).to_have_count(0, timeout=WAIT_MS)
