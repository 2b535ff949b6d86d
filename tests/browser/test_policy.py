"""The browser holds the page to its policy: nothing goes elsewhere, whatever script came to run in it."""

from typing import Any

import pytest

pytestmark = pytest.mark.browser

ELSEWHERE = "http://127.0.0.1:1/"  # where nobody listens
TRY_EVERYTHING = """async elsewhere => {
    const refused = [];
    document.addEventListener("securitypolicyviolation", event => refused.push(event.effectiveDirective));
    await fetch(elsewhere).catch(() => 0);
    navigator.sendBeacon(elsewhere, "a picture");
    const add = (name, more) => document.body.appendChild(Object.assign(document.createElement(name), more));
    add("img", {src: elsewhere});
    add("script", {src: elsewhere});
    add("link", {rel: "stylesheet", href: elsewhere});
    add("iframe", {src: elsewhere});
    add("form", {action: elsewhere, method: "post"}).submit();
    await new Promise(done => setTimeout(done, 1000));
    return refused;
}"""


def test_a_script_in_the_page_can_send_nothing_elsewhere(browser: Any, server: Any) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("requestfinished", lambda request: asked.append(request.url))
    page.goto(server.url)
    page.wait_for_selector("#variables-pictures img")
    refused = page.evaluate(TRY_EVERYTHING, ELSEWHERE)
    page.close()
    assert {each.removesuffix("-elem") for each in refused} == {
        "connect-src",
        "img-src",
        "script-src",
        "style-src",
        "frame-src",
        "form-action",
    }
    assert all(url.startswith((server.url, "data:")) for url in asked)


def test_no_other_page_can_show_the_page_in_a_frame(browser: Any, server: Any) -> None:
    page = browser.new_page()
    page.set_content(f'<iframe src="{server.url}"></iframe>')
    page.wait_for_timeout(2000)
    assert not any(frame.url.startswith(server.url) for frame in page.frames)
    page.close()
