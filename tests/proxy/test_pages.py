"""The control pages on a real server: signing in and out, who sees what, hostile texts, caching, and their texts."""

import re
import string
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from backend_pool.comfy.result import Result
from backend_pool.job_state import JobState
from proxy.access.logins import COOKIE
from proxy.pages.browsers import browser
from proxy.pages.login import local_path
from proxy.pages.render import TEMPLATES
from proxy.pages.texts import ENGLISH, Texts
from proxy.views.amounts import duration
from tests.proxy.control_server import API, HTML, PASSWORD, Server, serving

PAGES = ("/cluster/", "/cluster/account", "/cluster/gallery", "/cluster/starting", "/cluster/admin/")
HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}"
FORM = {"username": "Ann", "password": PASSWORD}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as running:
        await running.user("root", admin=True)
        await running.user("Ann")
        yield running


async def test_signing_in_sets_a_guarded_cookie_and_signing_out_ends_it(server: Server) -> None:
    async with server.browser(**HTML) as client:
        form = await client.get("/cluster/login?next=/cluster/gallery")
        assert form.status_code == 200 and 'value="/cluster/gallery"' in form.text
        answer = await client.post("/cluster/login", data=FORM | {"next": "/cluster/gallery"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/cluster/gallery")
        cookie = next(c for c in answer.headers.get_list("set-cookie") if c.startswith(COOKIE))
        assert {"HttpOnly", "Path=/", "SameSite=lax"} <= {part.strip() for part in cookie.split(";")}
        assert "Secure" not in cookie
        assert (await client.get("/cluster/login")).headers["location"] == "/cluster/"
        kept = client.cookies[COOKIE]
        answer = await client.post("/cluster/logout")
        assert (answer.status_code, answer.headers["location"]) == (303, "/cluster/login")
        assert COOKIE not in client.cookies
        client.cookies.set(COOKIE, kept)
        assert (await client.get("/cluster/")).status_code == 303


async def test_the_cookie_is_for_https_only_when_asked_for(tmp_path: Path) -> None:
    async with serving(tmp_path, cookie_secure=True) as server, server.browser() as client:
        await server.user("Ann")
        answer = await client.post("/cluster/login", data=FORM)
        assert "Secure" in answer.headers["set-cookie"]


async def test_wrong_passwords_show_the_form_again_and_then_429(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, login_attempts=2, login_address_attempts=2) as server,
        server.browser(**HTML) as client,
    ):
        await server.user("Ann")
        for form in (FORM | {"password": "wrong"}, {"username": HOSTILE, "password": ""}):
            answer = await client.post("/cluster/login", data=form)
            assert answer.status_code == 401 and 'role="alert"' in answer.text and COOKIE not in client.cookies
            assert "<img src=x" not in answer.text
        answer = await client.post("/cluster/login", data=FORM)
        assert answer.status_code == 429 and 0 < int(answer.headers["retry-after"]) <= 300
        answer = await client.post("/cluster/login", data=FORM, headers={"Accept": "application/json"})
        assert answer.status_code == 429 and answer.json()["error"]["type"] == "too_many_requests"


async def test_odd_forms_are_refused(server: Server) -> None:
    async with server.browser() as client:
        for content, kind, status in (
            (b"", "application/x-www-form-urlencoded", 401),
            (b"username=Ann", "application/x-www-form-urlencoded", 401),
            (b"username=%FF&password=%00", "application/x-www-form-urlencoded", 401),
            (b"&".join(b"a=b" for _ in range(100)), "application/x-www-form-urlencoded", 400),
            (b"\xff\xfe", "application/x-www-form-urlencoded", 400),
            (b"{}", "application/json", 400),
            (b"x" * 20_000, "application/x-www-form-urlencoded", 413),
        ):
            answer = await client.post("/cluster/login", content=content, headers={"Content-Type": kind})
            assert answer.status_code == status, content[:20]
            assert set(answer.json()["error"]) == {"type", "message", "details", "extra_info"}


async def test_pages_send_strangers_to_the_login_and_back(server: Server) -> None:
    async with server.browser() as client:
        for path in PAGES:
            answer = await client.get(path, headers=HTML)
            assert answer.status_code == 303 and answer.headers["location"].startswith("/cluster/login")
        answer = await client.get("/cluster/gallery?before=5", headers=HTML)
        assert answer.headers["location"] == "/cluster/login?next=/cluster/gallery%3Fbefore%3D5"
        answer = await client.get("/cluster/", headers={"Accept": "application/json"})
        assert answer.status_code == 401 and answer.json()["error"]["type"] == "not_authenticated"


async def test_every_page_renders_for_those_who_may_see_it(server: Server) -> None:
    async with server.signed_in("root") as root, server.signed_in("Ann") as ann:
        for path in PAGES:
            answer = await root.get(path, headers=HTML)
            assert answer.status_code == 200 and answer.text.count("<main") == 1, path
            policy = answer.headers["content-security-policy"]
            assert "script-src 'self';" in policy and "unsafe" not in policy
            assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=|javascript:", answer.text)
            assert "https://" not in answer.text
        answer = await ann.get("/cluster/admin/", headers=HTML)
        assert answer.status_code == 403 and "for administrators" in answer.text
        assert answer.headers["x-request-id"] in answer.text
        assert "/cluster/admin/" not in (await ann.get("/cluster/", headers=HTML)).text
        assert (await ann.get("/cluster/nothing", headers=HTML)).status_code == 404
        assert (await ann.put("/cluster/account", headers=HTML)).status_code == 405
        assert (await ann.get("/cluster/logout", headers=HTML)).status_code == 405
        assert (await ann.get("/cluster")).headers["location"] == "/cluster/"
        assert (await root.get("/cluster/admin")).headers["location"] == "/cluster/admin/"


async def test_hostile_texts_stay_texts(server: Server) -> None:
    ann = await server.cluster.people.access.users.by_name("Ann")
    assert ann is not None
    prompt: dict[str, Any] = {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": HOSTILE}}}
    await server.job(ann, prompt, "waiting")
    outputs = {"1": {"images": [{"filename": f"{HOSTILE}.png", "subfolder": HOSTILE, "type": "output"}]}}
    why = [["execution_error", {"exception_message": HOSTILE}]]
    await server.ended(await server.job(ann, prompt, "ended"), JobState.FAILED, Result(outputs, {}, why))
    await server.cluster.work.registry.add("http://127.0.0.1:9", '"><b>rack')
    async with server.browser(**{"User-Agent": HOSTILE}) as client:
        await client.post("/cluster/login", data=FORM)
        await client.post(f"{API}/tokens", json={"name": HOSTILE})
        for path in ("/cluster/", "/cluster/gallery", "/cluster/account", f"/cluster/starting?next=/{HOSTILE}"):
            answer = await client.get(path, headers=HTML)
            assert answer.status_code == 200 and "&lt;img src=x" in answer.text, path
            assert "<img src=x" not in answer.text and "49" not in re.findall(r"&amp;(\S+)", answer.text)
    async with server.signed_in("root") as root:
        answer = await root.get("/cluster/admin/", params={"q": HOSTILE}, headers=HTML)
        assert "<b>rack" not in answer.text and "<img src=x" not in answer.text


async def test_home_shows_only_the_users_own(server: Server) -> None:
    bob = await server.user("Bob")
    prompt: dict[str, Any] = {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "bobs secret plan"}}}
    outputs = {"1": {"images": [{"filename": "bobs.png", "subfolder": "", "type": "output"}]}}
    await server.ended(await server.job(bob, prompt, "1"), JobState.SUCCEEDED, Result(outputs))
    await server.job(bob, prompt, "2")
    async with server.signed_in("Ann") as ann, server.signed_in("Bob") as client:
        for path in ("/cluster/", "/cluster/gallery"):
            assert "bobs" not in (await ann.get(path, headers=HTML)).text
            assert "bobs.png" in (await client.get(path, headers=HTML)).text
        assert "bobs secret plan" in (await client.get("/cluster/", headers=HTML)).text
    async with server.signed_in("root") as root:
        answer = await root.get("/cluster/admin/", headers=HTML)
        assert "Bob" in answer.text and "bobs" not in answer.text


async def test_an_unchanged_page_is_a_304(server: Server) -> None:
    async with server.signed_in("Ann") as ann:
        first = await ann.get("/cluster/account", headers=HTML)
        marked = HTML | {"If-None-Match": first.headers["etag"]}
        assert (await ann.get("/cluster/account", headers=marked)).status_code == 304
        await ann.post(f"{API}/tokens", json={"name": "laptop"})
        assert (await ann.get("/cluster/account", headers=marked)).status_code == 200


async def test_the_next_user_of_a_browser_is_led_past_the_clearing_page(server: Server) -> None:
    await server.user("Bob")
    async with server.browser() as client:
        again = FORM | {"next": "/cluster/account"}
        assert (await client.post("/cluster/login", data=again)).headers["location"] == "/cluster/account"
        await client.post("/cluster/logout")
        assert (await client.post("/cluster/login", data=again)).headers["location"] == "/cluster/account"
        answer = await client.post("/cluster/login", data=again | {"username": "Bob"})
        assert answer.headers["location"] == "/cluster/switch?next=/cluster/account"
        page = await client.get(answer.headers["location"])
        assert 'data-next="/cluster/account"' in page.text
        logins = (await client.get(f"{API}/logins")).json()["logins"]
        assert len(logins) == 1
    async with server.signed_in("Ann") as ann:
        assert len((await ann.get(f"{API}/logins")).json()["logins"]) == 1


async def test_static_files_are_open_lasting_and_compressed(server: Server) -> None:
    async with server.browser() as client:
        page = (await client.get("/cluster/login")).text
        address = re.search(r'href="(/cluster/static/style\.css\?v=\w+)"', page)
        assert address is not None
        plain = await client.get(address[1], headers={"Accept-Encoding": "identity"})
        zipped = await client.get(address[1], headers={"Accept-Encoding": "gzip"})
        assert "immutable" in plain.headers["cache-control"] and zipped.headers["content-encoding"] == "gzip"
        assert plain.content == zipped.content == (TEMPLATES / "static" / "style.css").read_bytes()
        loose = await client.get("/cluster/static/live.js")
        assert loose.headers["cache-control"] == "no-cache" and loose.headers["content-type"].startswith("text/java")
        marked = {"If-None-Match": loose.headers["etag"]}
        assert (await client.get("/cluster/static/live.js", headers=marked)).status_code == 304
        for bad in ("nothing.css", "../base.html", "%2e%2e/base.html", "..%2fbase.html", "/etc/passwd", ""):
            assert (await client.get(f"/cluster/static/{bad}", headers=HTML)).status_code in {303, 404}, bad


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        ("/", "/"),
        ("/?a=b#c", "/?a=b#c"),
        ("/cluster/gallery", "/cluster/gallery"),
        ("//evil.example", "/cluster/"),
        ("/\\evil.example", "/cluster/"),
        ("/a\\b", "/cluster/"),
        ("https://evil.example", "/cluster/"),
        ("javascript:alert(1)", "/cluster/"),
        ("/a\nLocation: x", "/cluster/"),
        ("/\t/evil.example", "/cluster/"),
        ("", "/cluster/"),
        ("/cluster/login?next=/", "/cluster/"),
        ("/cluster/logout", "/cluster/"),
        ("/" + "x" * 3000, "/cluster/"),
    ],
)
def test_where_a_sign_in_may_lead(target: str, kept: str) -> None:
    assert local_path(target) == kept


def test_texts_and_their_uses_agree() -> None:
    sources = [path.read_text() for path in TEMPLATES.glob("*.html")]
    sources += [path.read_text() for path in (TEMPLATES.parent / "proxy" / "pages").glob("*.py")]
    used = {key for text in sources for key in re.findall(r'(?:\bt|texts)(?:\.count)?\(f?"([a-z_.{}]+)"', text)}
    partial = {key.partition("{")[0] for key in used if "{" in key or key.endswith((".", "_"))}
    for key in used:
        if key not in partial and "{" not in key:
            assert key in ENGLISH or f"{key}.one" in ENGLISH, key
    for key in ENGLISH:
        plain = key.removesuffix(".one").removesuffix(".other")
        assert plain in used or any(plain.startswith(prefix) for prefix in partial), key


def test_whoever_is_asked_answers_with_the_verb() -> None:
    """The label of the button, or words of its own: two buttons that say Cancel cancel nothing."""
    found = 0
    for path in TEMPLATES.glob("*.html"):
        for tag, label in re.findall(
            r"<button([^>]*?data-ask=(?:.|\n)*?)>((?:(?!</button>).)*)</button>", path.read_text()
        ):
            found += 1
            words = re.findall(r'\bt\("([a-z_.]+)', label)
            assert "data-yes=" in tag or (words and "queue.cancel" not in words), f"{path.name}: {label}"
        assert not re.search(r"<(?!button)\w+[^>]*data-ask=", path.read_text()), path.name
    assert found > 20


def test_counted_texts_come_in_both_forms_with_the_same_fields() -> None:
    for key, text in ENGLISH.items():
        if key.endswith(".one"):
            other = ENGLISH[key.removesuffix(".one") + ".other"]
            assert _fields(text) == _fields(other)
    assert Texts({"nav.home": "首页"}, "zh")("nav.home") == "首页"
    assert Texts({}, "zh")("nav.home") == "Home"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.1 s"),
        (4.25, "4.2 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (65, "1 min 5 s"),
        (7200, "2 h"),
        (7260, "2 h 1 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("agent", "text"),
    [
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0", "Edge, Windows"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox, Linux"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1", "Safari, iPhone"),
        ("python-httpx/0.28.1", "python-httpx"),
        ("", ""),
    ],
)
def test_browsers(agent: str, text: str) -> None:
    assert browser(agent) == text


def _fields(text: str) -> set[str | None]:
    return {name for _, name, _, _ in string.Formatter().parse(text)} - {None}
