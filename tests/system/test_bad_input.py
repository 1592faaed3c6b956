"""Malformed, huge, deep and mistyped bodies: ComfyUI's error JSON, and a server that goes on."""

import asyncio
import contextlib
import json
from urllib.parse import urlsplit

import pytest

from tests.contract import graphs
from tests.system.people import Someone

PROMPT = json.dumps(graphs.saved(1))


def beside(fields: str) -> str:
    """A good prompt with these fields beside it."""
    return f'{{"prompt": {PROMPT}, {fields}}}'


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + closing * depth


BODIES = {
    "empty": "",
    "space": " \n ",
    "half": '{"prompt": {',
    "no json": "<html>",
    "binary": "\udcff\udc80\udcfe",
    "null": "null",
    "list": "[]",
    "string": '"prompt"',
    "number": "5",
    "nan": beside('"number": NaN'),
    "infinity": beside('"number": -Infinity'),
    "overflow": beside('"number": 1e999'),
    "overflow inside": beside('"extra_data": {"x": [1e999]}'),
    "nan inside": beside('"extra_data": {"x": NaN}'),
    "huge number": beside('"number": 1' + "0" * 5000),
    "number as text": beside('"number": "first"'),
    "deep list": nested(100_000),
    "deep object": '{"prompt":' * 50_000 + "1" + "}" * 50_000,
    "deep in extra_data": beside(f'"extra_data": {nested(900)}'),
    "deep in an input": f'{{"prompt": {{"1": {{"class_type": "SaveImage", "inputs": {{"images": {nested(950)}}}}}}}}}',
    "prompt null": '{"prompt": null}',
    "prompt list": '{"prompt": [1, 2]}',
    "prompt text": '{"prompt": "x"}',
    "node null": '{"prompt": {"1": null}}',
    "node list": '{"prompt": {"1": []}}',
    "class number": '{"prompt": {"1": {"class_type": 7, "inputs": {}}}}',
    "class object": '{"prompt": {"1": {"class_type": {}, "inputs": {}}}}',
    "inputs list": '{"prompt": {"1": {"class_type": "SaveImage", "inputs": []}}}',
    "inputs null": '{"prompt": {"1": {"class_type": "SaveImage", "inputs": null}}}',
    "link to nowhere": '{"prompt": {"1": {"class_type": "SaveImage", "inputs": {"images": ["9", 0]}}}}',
    "link with a text": '{"prompt": {"1": {"class_type": "SaveImage", "inputs": {"images": ["1", "x"]}}}}',
    "link to itself": '{"prompt": {"1": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}}}',
    "extra_data text": beside('"extra_data": "x"'),
    "prompt_id object": beside('"prompt_id": {"a": 1}'),
    "prompt_id path": beside('"prompt_id": "../../x"'),
    "prompt_id long": beside(f'"prompt_id": "{"x" * 5000}"'),
    "client_id list": beside('"client_id": [1]'),
    "targets text": beside('"partial_execution_targets": "2"'),
    "targets number": beside('"partial_execution_targets": 3'),
}


@pytest.mark.parametrize("case", BODIES)
async def test_a_bad_prompt_is_refused_in_comfyuis_words(ann: Someone, case: str) -> None:
    body = BODIES[case].encode("utf-8", "surrogateescape")
    answer = await ann.comfy.call("POST", "/prompt", data=body)
    assert answer.status == 400, answer.body
    error = answer.json()["error"]
    assert set(error) == {"type", "message", "details", "extra_info"}
    assert await ann.ids() == ([], [], [])


async def test_surrogates_and_nul_are_kept_or_refused_but_break_nothing(ann: Someone) -> None:
    for text in ("\x00", "\ud800", "\U0001f98a" * 1000, "\u202e"):
        prompt = graphs.saved(2)
        prompt["2"]["_meta"] = {"title": text}
        answer = await ann.comfy.call("POST", "/prompt", data=json.dumps({"prompt": prompt, "client_id": "odd"}))
        assert answer.status in (200, 400), text
        if answer.status == 200:
            assert (await ann.comfy.get("/queue")).status == 200
            assert (await ann.comfy.get("/history")).status == 200
    await ann.runs(graphs.saved(3))
    assert (await ann.comfy.get("/cluster/")).status == 200


OTHERS = ("/queue", "/history", "/interrupt", "/free", "/api/jobs/cancel")


@pytest.mark.parametrize("path", OTHERS)
@pytest.mark.parametrize(
    "body",
    ["{", "[]", "7", nested(5000), '{"delete": 7, "clear": [], "job_ids": {"a": 1}}', '{"delete": [{}, null, 1e400]}'],
)
async def test_bad_commands_break_nothing(ann: Someone, path: str, body: str) -> None:
    answer = await ann.comfy.call("POST", path, data=body.encode())
    assert answer.status in (200, 400)
    assert (await ann.comfy.get("/queue")).status == 200


@pytest.mark.parametrize(
    "query",
    ["/history?max_items=1e9", "/history?offset=-5", "/history?max_items=99999999999999999999&offset=3",
     "/api/jobs?offset=-1&limit=99999999999", "/api/jobs?offset=99999999999999999999", "/api/jobs?status=,,",
     "/view_metadata/x?filename=%00", "/models/..%2f..", "/object_info/%00", "/history/%00", "/api/jobs/%F0%9F%A6%8A"],
)  # fmt: skip
async def test_odd_questions_are_answered(ann: Someone, query: str) -> None:
    assert (await ann.comfy.get(query)).status in (200, 400, 404)


async def test_an_oversized_body_is_refused_before_it_is_stored(ann: Someone) -> None:
    """One that says so, and one that only turns out to be: at most max_upload_mb of it is ever read."""
    url = urlsplit(ann.cluster.url)
    for path in ("/prompt", "/upload/image"):
        for head in ("Content-Length: 4000000000", "Transfer-Encoding: chunked"):
            reader, writer = await asyncio.open_connection(url.hostname, url.port)
            token = ann.person.token
            writer.write(
                f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
                f"Content-Type: multipart/form-data; boundary=x\r\n{head}\r\n\r\n".encode()
            )
            start = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
            writer.write(b"%x\r\n%s\r\n" % (len(start), start) if "chunked" in head else start)
            sending = asyncio.get_running_loop().create_task(_flood(writer, chunked="chunked" in head))
            status = await asyncio.wait_for(reader.readline(), 60)
            assert status.split()[1] == b"413", (path, head, status)
            sending.cancel()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
    assert await ann.ids() == ([], [], [])


async def test_the_server_lives_after_all_that(ann: Someone) -> None:
    assert len(await ann.picture(await ann.runs(graphs.saved(4)))) > 50
    assert (await ann.comfy.get("/cluster/readyz")).status == 200


async def _flood(writer: asyncio.StreamWriter, *, chunked: bool) -> None:
    """Send for ever, or until the other side has had enough."""
    block = bytes(1 << 20)
    try:
        while True:
            writer.write(b"100000\r\n%s\r\n" % block if chunked else block)
            await writer.drain()
    except (ConnectionError, OSError):
        return
