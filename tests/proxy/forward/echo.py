"""An upstream that answers with what it was sent."""

from aiohttp import web


async def echo(request: web.Request) -> web.Response:
    """Everything the upstream saw, as JSON."""
    body = await request.read()
    return web.json_response(
        {
            "method": request.method,
            "target": request.raw_path,
            "headers": [[name.lower(), value] for name, value in request.headers.items()],
            "length": len(body),
            "body": body[:100].decode("latin-1"),
        }
    )


def seen(answer: dict[str, list[list[str]]], name: str) -> list[str]:
    return [value for key, value in answer["headers"] if key == name]
