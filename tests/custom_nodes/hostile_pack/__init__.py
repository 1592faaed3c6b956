"""A hostile pack: `POST /hostile/attempt` tries one of `attempts.py` from inside its ComfyUI process."""

import asyncio

NODE_CLASS_MAPPINGS = {}

try:
    from server import PromptServer
except ImportError:  # imported by tests, which have no ComfyUI
    pass
else:
    from aiohttp import web

    from . import attempts  # noqa: TID252 - ComfyUI gives a pack a name made of its path

    @PromptServer.instance.routes.post("/hostile/attempt")
    async def attempt(request):
        order = await request.json()
        return web.json_response(await asyncio.to_thread(attempts.attempt, order["name"], order["facts"]))
