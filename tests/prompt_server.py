"""uvicorn in a test's own event loop, started and ended without the tenths of a second it sleeps in between."""

import asyncio
import contextlib
import socket

import uvicorn

LOOK_EVERY_S = 0.005
SHUTDOWN_TIMEOUT_S = 1.0


class PromptServer(uvicorn.Server):
    """Call `end()` instead of setting `should_exit`, from the loop it serves in."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ending = asyncio.Event()
        self._started = asyncio.Event()

    async def ready(self) -> None:
        """Until it serves."""
        await self._started.wait()

    def end(self) -> None:
        """Let `serve` close what is open and return."""
        self.should_exit = True
        self._ending.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)  # sets the Date header
        self._started.set()
        await self._ending.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_TIMEOUT_S):
                while state.connections or state.tasks:
                    await asyncio.sleep(LOOK_EVERY_S)
        for task in list(state.tasks):
            task.cancel()
        for server in self.servers:
            await server.wait_closed()
