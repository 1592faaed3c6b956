"""The pages a person sees, as functions for browser tests: the login form and the official ComfyUI frontend.

Written for comfyui-frontend-package 1.58. Its nodes are drawn on a canvas, so what they show is asked of the page's own
`app` object; what can be clicked is clicked. Every wait ends after WAIT_MS.
"""

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.async_api import ConsoleMessage, Locator, Page, Response, expect

WAIT_MS = 60_000.0

READY = """() => {
  const app = window.app
  const veil = document.querySelector('[data-testid=app-loading-overlay]')
  return Boolean(app?.rootGraph && app.extensionManager && document.querySelector('canvas') && !veil?.innerHTML)
}"""
NODE = "const node = window.app.rootGraph.nodes.find((each) => each.type === type);"
PICTURE = f"""([type, before]) => {{ {NODE}
  const image = node?.imgs?.[0]
  const shown = image?.complete && image.naturalWidth && image.src.includes('/view?')
  if (!shown && node) {{  // the frontend may still be choosing its own view
    window.app.canvas.ds.scale = 0.8
    window.app.canvas.centerOnNode(node)
  }}
  return shown && image.src !== before ? image.src : null
}}"""

DROP = """async ([content, name, type]) => {
  const data = new DataTransfer()
  data.items.add(new File([Uint8Array.from(atob(content), (char) => char.charCodeAt(0))], name, { type }))
  const at = { dataTransfer: data, bubbles: true, cancelable: true, clientX: 300, clientY: 700 }
  for (const kind of ['dragenter', 'dragover', 'drop']) {
    document.querySelector('#graph-canvas').dispatchEvent(new DragEvent(kind, at))
  }
}"""


async def sign_in(page: Page, url: str, username: str, password: str) -> None:
    """Fill in the login form; ends on the page that follows it, or on the form again when it was refused."""
    await page.goto(f"{url}/cluster/login", timeout=WAIT_MS)
    await page.locator("input[name=username]").fill(username)
    await page.locator("input[name=password]").fill(password)
    async with page.expect_navigation(timeout=WAIT_MS):
        await page.locator("input[name=password]").press("Enter")


@dataclass(frozen=True)
class Row:
    """A row of the queue panel."""

    job_id: str
    text: str


@dataclass
class WebUi:
    """The official frontend in one tab. `problems` collects console errors and answers of 500 and more."""

    page: Page
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._note_console)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("response", self._note_response)

    async def open(self, url: str) -> None:
        """Go to the WebUI and wait until it can be used."""
        await self.page.goto(url, timeout=WAIT_MS)
        await self.ready()

    async def reload(self) -> None:
        await self.page.reload(timeout=WAIT_MS)
        await self.ready()

    async def ready(self) -> None:
        """Wait for the canvas with a workflow on it."""
        await self.page.wait_for_function(READY, timeout=WAIT_MS)
        await self.page.wait_for_function("() => window.app.rootGraph.nodes.length > 0", timeout=WAIT_MS)

    # Workflows and widgets

    async def node_types(self) -> list[str]:
        types: list[str] = await self.page.evaluate("() => window.app.rootGraph.nodes.map((node) => node.type)")
        return types

    async def load(self, workflow: dict[str, Any]) -> None:
        """Open a workflow as a dropped file would."""
        await self.page.evaluate("(workflow) => window.app.loadGraphData(workflow)", workflow)

    async def drop(self, name: str, content: bytes, mime_type: str) -> None:
        """Drop a file onto an empty place of the canvas."""
        await self.page.evaluate(DROP, [base64.b64encode(content).decode(), name, mime_type])

    async def shows(self, node_type: str) -> None:
        """Wait until the open workflow has a node of a type."""
        script = f"(type) => {{ {NODE} return Boolean(node) }}"
        await self.page.wait_for_function(script, arg=node_type, timeout=WAIT_MS)

    async def open_templates(self) -> None:
        """Open the dialog with the templates; wait for one."""
        await self.page.evaluate("() => void window.app.extensionManager.command.execute('Comfy.BrowseTemplates')")
        await self.page.locator("[data-testid^=template-workflow-]").first.wait_for(timeout=WAIT_MS)

    async def open_template(self, title: str) -> None:
        """Look for one in the open dialog and choose it; the dialog closes."""
        await self.page.get_by_role("dialog").get_by_placeholder("Search").fill(title)
        cards = self.page.locator("[data-testid^=template-workflow-]")
        await expect(cards).to_have_count(1, timeout=WAIT_MS)
        await cards.filter(has_text=title).click()
        await cards.first.wait_for(state="hidden", timeout=WAIT_MS)

    async def set_widget(self, node_type: str, name: str, value: object) -> None:
        """Set a number or a choice on the first node of a type."""
        script = f"""([type, name, value]) => {{ {NODE}
          const widget = node.widgets.find((each) => each.name === name)
          widget.value = value
          widget.callback?.(value)
        }}"""
        await self.page.evaluate(script, [node_type, name, value])

    async def write_prompt(self, text: str, index: int = 0) -> None:
        """Type into the nth text box of the canvas."""
        box = self.page.get_by_test_id("dom-widget-textarea").nth(index)
        await box.fill(text)
        await box.blur()

    async def api_prompt(self) -> dict[str, Any]:
        """The workflow as it would be posted."""
        prompt: dict[str, Any] = await self.page.evaluate("async () => (await window.app.graphToPrompt()).output")
        return prompt

    async def press_widget(self, node_type: str, name: str) -> None:
        """Press a button widget, such as LoadImage's upload."""
        script = f"([type, name]) => {{ {NODE} node.widgets.find((each) => each.name === name).callback() }}"
        await self.page.evaluate(script, [node_type, name])

    async def upload(self, node_type: str, file: Path) -> str:
        """Choose a file for a node's upload button; the name it was given."""
        async with self.page.expect_file_chooser() as chooser:
            await self.press_widget(node_type, "upload")
        async with self.page.expect_response("**/upload/image", timeout=WAIT_MS) as uploaded:
            await (await chooser.value).set_files(file)
        return str((await (await uploaded.value).json())["name"])

    async def save_as(self, name: str) -> None:
        """Save the open workflow under a new name, as Ctrl+S does."""
        async with self.page.expect_response("**/api/userdata/workflows*", timeout=WAIT_MS):
            await self.page.evaluate("() => void window.app.extensionManager.command.execute('Comfy.SaveWorkflow')")
            box = self.page.get_by_role("dialog").get_by_role("textbox")
            await box.fill(name)
            await box.press("Enter")

    # Running

    async def run(self) -> str:
        """Press Run; the id of the job. Fails when the server refuses the prompt."""
        answer = await self.press_run()
        assert answer.status == 200, await answer.text()
        return str((await answer.json())["prompt_id"])

    async def press_run(self) -> Response:
        """Press Run; the server's answer, whatever it is."""
        async with self.page.expect_response("**/api/prompt", timeout=WAIT_MS) as posted:
            await self.page.get_by_test_id("queue-button").click()
        return await posted.value

    async def picture(self, node_type: str = "SaveImage", before: str | None = None) -> str:
        """Wait for a saved picture on a node, another one than `before`; its address."""
        shown = await self.page.wait_for_function(PICTURE, arg=[node_type, before], timeout=WAIT_MS)
        return str(await shown.json_value())

    async def look_at(self, node_type: str) -> None:
        """Bring a node into sight and close: pictures of nodes that are out of sight or small are not loaded."""
        script = f"(type) => {{ {NODE} window.app.canvas.ds.scale = 0.8; window.app.canvas.centerOnNode(node) }}"
        await self.page.evaluate(script, node_type)

    async def picture_bytes(self, address: str) -> bytes:
        """The file behind an address, as this person's browser gets it."""
        answer = await self.page.request.get(address)
        assert answer.ok, answer.status
        return await answer.body()

    async def progress(self, node_type: str) -> float:
        """Wait for the bar on a node; how far it is, 0 to 1."""
        script = f"(type) => {{ {NODE} return node?.progress || null }}"
        return float(await (await self.page.wait_for_function(script, arg=node_type, timeout=WAIT_MS)).json_value())

    async def preview(self, node_type: str) -> None:
        """Wait for a preview on a node."""
        await self.look_at(node_type)
        script = f"(type) => {{ {NODE} return node?.imgs?.[0]?.src.startsWith('blob:') }}"
        await self.page.wait_for_function(script, arg=node_type, timeout=WAIT_MS)

    # Queue

    async def open_queue(self) -> None:
        """Show the job list, whether or not it was left open."""
        tools = self.page.get_by_test_id("queue-progress-overlay").get_by_label("Filter jobs")  # not in its small form
        if not await tools.is_visible():
            await self.page.get_by_test_id("queue-overlay-toggle").click()
            await tools.wait_for(timeout=WAIT_MS)

    async def rows(self) -> list[Row]:
        """The rows of the open job list, top first."""
        found = await self.page.locator("[data-job-id]").all()
        return [Row(await row.get_attribute("data-job-id") or "", await row.inner_text()) for row in found]

    def row(self, job_id: str) -> Locator:
        return self.page.locator(f'[data-job-id="{job_id}"]')

    async def row_says(self, job_id: str, text: str) -> None:
        """Wait until a job's row has a text."""
        await self.row(job_id).filter(has_text=text).wait_for(timeout=WAIT_MS)

    async def cancel_row(self, job_id: str) -> Response:
        """Press the X of a waiting or running job; the server's answer."""
        await self.row(job_id).hover(timeout=WAIT_MS)
        async with self.page.expect_response(f"**/api/jobs/{job_id}/cancel", timeout=WAIT_MS) as posted:
            await self.row(job_id).get_by_role("button", name="Cancel").click()
        return await posted.value

    async def job_menu(self, job_id: str, entry: str) -> None:
        """Choose an entry of a row's menu."""
        await self.row(job_id).hover(timeout=WAIT_MS)
        await self.row(job_id).get_by_role("button", name="More").click()
        await self.page.get_by_role("menuitem", name=entry).click()

    async def opened(self, job_id: str) -> None:
        """Wait until the workflow of a job is the open one."""
        script = "(id) => window.app.extensionManager.workflow.activeWorkflow?.path.includes(id)"
        await self.page.wait_for_function(script, arg=job_id, timeout=WAIT_MS)

    async def clear_queue(self) -> None:
        """Drop all waiting jobs."""
        async with self.page.expect_response("**/api/queue", timeout=WAIT_MS):
            await self.page.get_by_label("Clear queued").click()

    async def cancel_running(self) -> Response:
        """Press the X beside Run, once it can be pressed."""
        async with self.page.expect_response("**/api/interrupt", timeout=WAIT_MS) as posted:
            await self.page.get_by_label("Cancel current run").click(timeout=WAIT_MS)
        return await posted.value

    async def idle(self) -> None:
        """Wait until the page counts no active job."""
        toggle = self.page.get_by_test_id("queue-overlay-toggle")
        await toggle.filter(has_text="0 active").wait_for(timeout=WAIT_MS)

    # Messages

    async def toasts(self) -> list[str]:
        return await self.page.get_by_test_id("toast").all_inner_texts()

    async def error(self) -> str:
        """Wait for the error card; what it says."""
        card = self.page.get_by_test_id("error-overlay")
        await card.wait_for(timeout=WAIT_MS)
        return await card.inner_text()

    async def dismiss_error(self) -> None:
        await self.page.get_by_test_id("error-overlay-dismiss").click()

    async def screenshot(self, path: Path) -> None:
        await self.page.screenshot(path=path)

    def _note_console(self, message: ConsoleMessage) -> None:
        # "Failed to load resource" has no address; answers are noted below, and 404s of optional files are normal.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.problems.append(message.text)

    def _note_response(self, response: Response) -> None:
        if response.status >= 500:
            self.problems.append(f"{response.status} {response.request.method} {response.url}")
