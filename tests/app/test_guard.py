"""What the page answers, with which headers, and what it refuses: to programs, to other pages, under other names."""

import asyncio
import http.client
import json
import os
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latlas.app.charts import Atlas
from latlas.app.guard import HEADERS, MOST_AT_ONCE, MOST_FILES, Guard
from latlas.app.serving import Served, forget_shown, free_port, is_local, own_names, serve
from latlas.app.upload_folder import UploadFolder
from latlas.base.errors import LatlasError, SettingError

pytest.importorskip("gradio", reason="the explorer needs gradio")

JOIN, UPLOAD = "/gradio_api/queue/join", "/gradio_api/upload"
EDGE = "----edge"
FORM = {"Content-Type": f"multipart/form-data; boundary={EDGE}"}
OWN = {"'none'", "'self'", "'unsafe-inline'", "'unsafe-eval'", "data:"}
# What gradio would open or send, were it asked to by the environment.
SETTINGS = {
    "GRADIO_SHARE": "True",
    "GRADIO_ANALYTICS_ENABLED": "True",
    "GRADIO_ALLOWED_PATHS": "/",
    "GRADIO_MCP_SERVER": "True",
    "GRADIO_SERVER_NAME": "0.0.0.0",
    "GRADIO_VIBE_MODE": "1",
    "GRADIO_NUM_WORKERS": "2",
    "GRADIO_SSR_MODE": "True",
    "GRADIO_RUN_HISTORY": "True",
}


class Asked:
    """Answers of a page to requests that no browser would send."""

    def __init__(self, served: Served) -> None:
        self.host = urllib.parse.urlparse(served.url).netloc

    def __call__(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, host: str | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.host, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", self.host if host is None else host)
            given = {"Content-Length": str(len(body))} | (headers or {}) if method == "POST" else headers or {}
            for name, value in given.items():
                if value:
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def upload(self, *contents: bytes, name: str = "mine.png") -> tuple[int, list[str]]:
        status, _, body = self("POST", UPLOAD, _form(*contents, name=name), FORM)
        return status, json.loads(body) if status == 200 else []

    def join(self, *data: Any) -> int:
        asked = {"data": list(data), "fn_index": 0, "session_hash": "a session", "event_data": None, "trigger_id": None}
        return self("POST", JOIN, json.dumps(asked).encode(), {"Content-Type": "application/json"})[0]


def _form(*contents: bytes, name: str = "mine.png") -> bytes:
    parts = [
        f'--{EDGE}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for content in contents
    ]
    return b"".join(parts) + f"--{EDGE}--\r\n".encode()


def _picture(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


@pytest.fixture(scope="module")
def ask(served: Served) -> Asked:
    return Asked(served)


# Before a server stands behind it


async def _answered(guard: Guard, scope: dict[str, Any], *received: dict[str, Any]) -> list[dict[str, Any]]:
    coming, sent = iter([*received, {"type": "http.disconnect"}]), []

    async def receive() -> Any:
        return next(coming)

    async def send(message: Any) -> None:
        sent.append(message)

    await guard(scope, receive, send)
    return sent


async def _hello(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Frame-Options", b"ALLOWALL"), (b"a", b"b")]})
    await send({"type": "http.response.body", "body": b"hello"})


def _upload_of(length: int) -> dict[str, Any]:
    headers = [(b"content-length", str(length).encode()), (b"content-type", FORM["Content-Type"].encode())]
    return {"type": "http", "method": "POST", "path": UPLOAD, "headers": headers}


def test_where_the_server_is_open_to_others_any_name_will_do(tmp_path: Path) -> None:
    guard = Guard(_hello, UploadFolder(tmp_path, most=100, lifetime=1.0))
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"lab.example.org:7860")]}
    start, body = asyncio.run(_answered(guard, scope))
    assert (start["status"], body["body"]) == (200, b"hello")
    headers = [name.lower() for name, _ in start["headers"]]
    assert dict(start["headers"])[b"x-frame-options"] == b"DENY"  # and not what the application says
    assert headers.count(b"x-frame-options") == 1
    assert b"a" in headers


def test_a_visitor_who_leaves_in_the_middle_of_an_upload_leaves_nothing(tmp_path: Path) -> None:
    folder = UploadFolder(tmp_path, most=1000, lifetime=600.0)
    start = {"type": "http.request", "body": _form(b"half a picture")[:150], "more_body": True}
    assert asyncio.run(_answered(Guard(_hello, folder), _upload_of(400), start)) == []
    assert list(tmp_path.iterdir()) == []
    assert folder.reserve(1000)


def test_where_there_is_no_room_a_visitor_is_told_to_come_again(tmp_path: Path) -> None:
    folder = UploadFolder(tmp_path, most=1000, lifetime=600.0)
    start, body = asyncio.run(_answered(Guard(_hello, folder), _upload_of(501)))
    assert start["status"] == 503
    assert "Try again" in json.loads(body["body"])["detail"]


def test_where_the_folder_is_gone_a_visitor_is_told(tmp_path: Path) -> None:
    guard = Guard(_hello, UploadFolder(tmp_path / "gone", most=10**6, lifetime=1.0))
    body = _form(b"x")
    sent = asyncio.run(_answered(guard, _upload_of(len(body)), {"type": "http.request", "body": body}))
    assert sent[0]["status"] == 507
    assert HEADERS.keys() <= {name.decode() for name, _ in sent[0]["headers"]}


def test_web_sockets_are_closed(tmp_path: Path) -> None:
    guard = Guard(_hello, UploadFolder(tmp_path, most=100, lifetime=1.0))
    (closed,) = asyncio.run(_answered(guard, {"type": "websocket", "path": "/", "headers": []}))
    assert closed["type"] == "websocket.close"


# Headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/config", 200),
        ("GET", "/theme.css", 200),
        ("GET", "/assets/nothing.js", 404),
        ("GET", "/nowhere", 404),
        ("POST", "/nowhere", 404),
        ("OPTIONS", "/", 404),
        ("DELETE", "/", 404),
        ("POST", JOIN, 400),
        ("POST", UPLOAD, 400),
        ("POST", "/gradio_api/cancel", 422),
        ("GET", "/gradio_api/upload_progress?upload_id=x", 200),
    ],
)
def test_every_answer_has_the_headers_and_none_names_a_version(ask: Asked, method: str, path: str, status: int) -> None:
    found, headers, _ = ask(method, path)
    assert found == status
    for name, value in HEADERS.items():
        assert headers[name] == value
    assert not any(digit in headers.get("server", "") for digit in "0123456789")
    assert "access-control-allow-origin" not in headers


def test_the_page_may_load_from_nobody_and_send_to_nobody_but_its_own_server(ask: Asked) -> None:
    policy = ask("GET", "/")[1]["content-security-policy"]
    rules = {name: set(sources) for name, *sources in (rule.split() for rule in policy.split("; "))}
    assert rules["default-src"] == rules["frame-ancestors"] == rules["form-action"] == {"'none'"}
    assert rules["connect-src"] == {"'self'"}
    for sources in rules.values():
        assert sources <= OWN


# Names and origins


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "127.0.0.1:1", "localhost:9999", "[::1]:80", "127.8.7.6"])
def test_the_page_answers_under_the_names_of_its_own_machine(ask: Asked, name: str) -> None:
    assert ask("GET", "/config", host=name)[0] == 200


@pytest.mark.parametrize(
    "name",
    [
        "example.com",
        "127.0.0.1.example.com",
        "localhost.example.com:7860",
        "example.com:127.0.0.1",
        "[::ffff:10.0.0.1]",
        "10.0.0.1",
        "0.0.0.0",
        "127.0.0.1@example.com",
        "[",
        "",
    ],
)
def test_under_another_name_nothing_is_answered(ask: Asked, name: str) -> None:
    for method, path in (("GET", "/"), ("GET", "/config"), ("POST", UPLOAD), ("GET", "/assets/nothing.js")):
        assert ask(method, path, host=name)[0] in (400, 421)


def test_what_another_page_sends_is_refused_and_what_the_page_sends_is_not(ask: Asked) -> None:
    form = _form(b"x")
    for origin in ("http://example.com", "null", "http://127.0.0.1:1", f"{ask.host}"):
        assert ask("POST", UPLOAD, form, FORM | {"Origin": origin})[0] == 403
    assert ask("POST", UPLOAD, form, FORM | {"Origin": f"http://{ask.host}"})[0] == 200
    forwarded = {"Origin": "https://lab.example.org", "X-Forwarded-Host": "lab.example.org"}
    assert ask("POST", UPLOAD, form, FORM | forwarded)[0] == 200


# Files


@pytest.mark.parametrize("route", ["/gradio_api/file=", "/file=", "/gradio_api/file/", "/static/", "/assets/", "/svelte/"])
@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../../../../../../../etc/passwd",
        "..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "..\\..\\..\\..\\etc\\passwd",
        "file:///etc/passwd",
        "http://127.0.0.1/",
        "pyproject.toml",
        "%00/etc/passwd",
    ],
)
def test_no_file_of_the_machine_is_answered_with(ask: Asked, route: str, path: str) -> None:
    status, _, body = ask("GET", route + path)
    assert status in (400, 403, 404)
    assert b"root:" not in body
    assert b"latlas" not in body


def test_no_link_and_no_neighbour_of_an_upload_is_answered_with(ask: Asked) -> None:
    _, (path,) = ask.upload(b"own")
    folder = Path(path).parent
    link, neighbour = folder / "link", folder / "neighbour"
    link.symlink_to("/etc/passwd")
    neighbour.write_bytes(b"root: neighbour")
    for other in (str(link), str(neighbour), f"{folder}/../{folder.name}/neighbour", str(folder), f"{path}/../neighbour"):
        assert ask("GET", f"/gradio_api/file={other}")[0] == 404
        assert ask.join(_picture(other)) == 410
    status, headers, body = ask("GET", f"/gradio_api/file={path}")
    assert (status, body) == (200, b"own")
    assert headers["cache-control"] == "no-store"
    assert headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "http://127.0.0.1:1/", "https://example.com/x.png", "../x", "", None, 7, ["x"]]
)
def test_a_question_names_no_file_but_an_upload(ask: Asked, path: Any) -> None:
    assert ask.join(_picture(path)) == 410
    assert ask.join([_picture(path)]) == 410
    assert ask.join({"deep": [{"path": path}]}) == 410


# Uploads


def test_an_upload_lies_under_a_name_that_the_visitor_did_not_choose(ask: Asked) -> None:
    for name in ("chosen.png", "../../chosen.png", "/tmp/chosen.png", "chosen.html", "con", "a" * 300):
        status, paths = ask.upload(b"content of " + name.encode(), name=name)
        assert status == 200
        (path,) = paths
        assert Path(path).parent == Path(os.environ["GRADIO_TEMP_DIR"])
        assert Path(path).read_bytes() == b"content of " + name.encode()
    names = [each.name for each in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*")]
    assert not any("chosen" in each or each == "con" for each in names)


def test_too_many_bytes_or_files_are_not_taken(ask: Asked) -> None:
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    before = set(folder.rglob("*"))
    assert ask.upload(b"x", bytes(10_000_001))[0] == 413
    assert ask.upload(*[b"x"] * (MOST_FILES + 1))[0] == 400
    assert ask("POST", UPLOAD, b"", FORM | {"Content-Length": str(2 * MOST_AT_ONCE)})[0] == 413
    assert ask("POST", UPLOAD, b"0\r\n\r\n", FORM | {"Content-Length": "", "Transfer-Encoding": "chunked"})[0] == 411
    # Of both a server heeds the pieces, so that the length would bound nothing.
    pieces = b"%x\r\n%b\r\n0\r\n\r\n" % (len(_form(b"x")), _form(b"x"))
    assert ask("POST", UPLOAD, pieces, FORM | {"Content-Length": "10", "Transfer-Encoding": "chunked"})[0] == 411
    assert ask("POST", UPLOAD, b"nothing of the kind", FORM)[0] == 400
    assert ask("POST", UPLOAD, b"no form", {"Content-Type": "text/plain"})[0] == 400
    assert set(folder.rglob("*")) == before
    assert ask.upload(bytes(10_000_000))[0] == 200


def test_a_question_is_short_and_names_few_pictures_however_often(ask: Asked) -> None:
    _, (path,) = ask.upload(bytes(9_000_000))
    assert ask.join([_picture(path)] * 7) == 413
    _, (small,) = ask.upload(b"x")
    assert ask.join([_picture(small)] * (MOST_FILES + 1)) == 413
    assert ask("POST", JOIN, b" " * 1_000_001)[0] == 413
    assert ask("POST", JOIN, b"[" * 200_000)[0] == 400
    assert ask("POST", JOIN, b"\xff\xfe")[0] == 400


# Programs


def test_nothing_else_that_gradio_offers_is_answered(served: Served, ask: Asked) -> None:
    offered = set(_offered(served.page.app.routes))
    assert {"/gradio_api/proxy={url_path:path}", "/gradio_api/component_server"} < {path for _, path in offered}
    answered = set()
    # A heartbeat has no end, and a stream of nobody's answers is cut off.
    for method, path in offered - {("GET", "/gradio_api/heartbeat/{session_hash}"), ("GET", "/gradio_api/queue/data")}:
        status, _, body = ask(method, path.partition("{")[0] + ("x" if "{" in path else ""), b"{}" if method == "POST" else b"")
        if (status, body) != (404, b'{"detail": "There is nothing here."}') and not (method == "HEAD" and status == 404):
            answered.add(path)
    assert answered <= {
        "/",
        "/config",
        "/theme.css",
        "/favicon.ico",
        "/robots.txt",
        "/manifest.json",
        "/assets/{path:path}",
        "/static/{path:path}",
        "/svelte/{path:path}",
        "/gradio_api/theme.css",
        "/gradio_api/startup-events",
        "/gradio_api/app_id",
        "/gradio_api/queue/join",
        "/gradio_api/upload",
        "/gradio_api/upload_progress",
        "/gradio_api/cancel",
        "/gradio_api/reset",
    }


def test_a_page_that_lost_its_server_learns_that_it_is_back(ask: Asked) -> None:
    status, _, body = ask("GET", "/gradio_api/app_id")
    assert status == 200
    assert json.loads(body)["app_id"] == json.loads(ask("GET", "/config")[2])["app_id"]


def _offered(routes: list[Any]) -> Iterator[tuple[str, str]]:
    for route in routes:
        inside = getattr(route, "original_router", route)  # as newer versions of FastAPI include one
        if hasattr(inside, "routes"):
            yield from _offered(inside.routes)
        if hasattr(route, "path"):
            yield from ((method, route.path) for method in getattr(route, "methods", None) or ("GET",))


def test_the_environment_opens_nothing(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"GRADIO_TEMP_DIR": "/", "GRADIO_ANALYTICS_MAX_EVENTS": "10", "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1"} | SETTINGS
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    opened = serve(atlas, port=0)
    try:
        ask = Asked(opened)
        config = json.loads(ask("GET", "/config")[2])
        assert opened.url.startswith("http://127.0.0.1:")
        assert opened.page.server_name == "127.0.0.1"
        assert (opened.page.share, opened.page.share_url) == (False, None)
        assert config["analytics_enabled"] is False
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        assert ask("GET", "/gradio_api/file=/etc/passwd")[0] == 404
        assert ask("GET", "/gradio_api/mcp/")[0] == 404
        assert ask("GET", "/gradio_api/vibe-code")[0] == 404
        assert getattr(opened.page, "_static_worker_pool", None) is None
        assert opened.page.node_process is None
    finally:
        opened.close()


def test_the_page_is_served_at_an_address_of_ipv6(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        free_port("::1", 0)
    except LatlasError:
        pytest.skip("this machine has no ::1")
    for name in (
        "GRADIO_TEMP_DIR",
        "GRADIO_ANALYTICS_ENABLED",
        "GRADIO_ANALYTICS_MAX_EVENTS",
        "GRADIO_ANALYTICS_CACHE_FREQUENCY",
    ):
        monkeypatch.setenv(name, "1")  # so that what is set is unset again
    opened = serve(atlas, host="::1", port=0)
    try:
        assert opened.url.startswith("http://[::1]:")
        with urllib.request.urlopen(opened.url + "config", timeout=30) as answer:
            assert json.load(answer)["title"] == "latlas explorer"
    finally:
        opened.close()


def test_what_visitors_were_shown_is_let_go_and_what_they_chose_is_kept(served: Served) -> None:
    shown = served.page.state_holder["somebody"].config_values
    long, short = (
        next(each["props"] for each in shown.values() if each and each["type"] == kind) for kind in ("html", "number")
    )
    long["value"], short["value"] = "x" * 10_001, 7
    forget_shown(served.page)
    assert (long["value"], short["value"]) == ("", 7)


def test_visitors_beyond_the_bound_take_the_place_of_the_earliest(served: Served) -> None:
    for place in range(100):
        assert served.page.state_holder[f"session {place}"] is not None
    kept = set(served.page.state_holder.session_data)
    assert len(kept) <= 41
    assert {f"session {place}" for place in range(70, 100)} <= kept


@pytest.mark.parametrize(
    ("name", "own"), [("::1", True), ("127.0.0.1.nip.io", False), ("LOCALHOST", True), ("localhost.", False)]
)
def test_own_names_are_told_from_others(name: str, own: bool) -> None:
    assert is_local(name) is own


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1", "2130706433"])
def test_however_the_address_of_this_machine_is_written_other_names_are_refused(host: str) -> None:
    own = own_names(host)
    assert own is not None
    assert own("127.0.0.1")
    assert own(host)
    assert not own("elsewhere.example")


def test_an_address_that_others_reach_may_be_called_by_any_name() -> None:
    assert own_names("0.0.0.0") is None
    assert own_names("192.0.2.1") is None


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_behind_a_proxy_the_page_answers_to_the_names_that_it_was_given_and_to_its_own(host: str, tmp_path: Path) -> None:
    guard = Guard(_hello, UploadFolder(tmp_path, most=100, lifetime=1.0), is_own_name=own_names(host, ["Lab.example.org"]))

    def status(name: str) -> int:
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", name.encode())]}
        return int(asyncio.run(_answered(guard, scope))[0]["status"])

    assert [status(name) for name in ("lab.example.org", "LAB.example.org:443", "127.0.0.1:7860", f"{host}:7860")] == [200] * 4
    assert [status(name) for name in ("elsewhere.example", "example.org", "lab.example.org.evil.example", "")] == [421] * 4


@pytest.mark.parametrize("name", ["https://lab.example.org", "lab.example.org:7860", "lab/page", "", "a..b", "läb.example\n"])
def test_what_is_no_name_is_refused_before_anything_is_served(name: str) -> None:
    with pytest.raises(SettingError, match=r"such as lab\.example\.org"):
        own_names("127.0.0.1", [name])
