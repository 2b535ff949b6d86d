"""Visitors of the explorer: each does what people do, with pictures of its own, and checks that what comes back is its own.

A visitor speaks gradio's HTTP protocol as the page in a browser does: it reads the page's layout, joins the queue, and listens. The one of
`browse` is a real Chromium.
"""

import asyncio
import base64
import hashlib
import io
import json
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from PIL import Image

API = "gradio_api"
PATIENCE = 120.0  # seconds after which an answer counts as lost


class WrongAnswerError(Exception):
    """An answer that is not this visitor's, or not what everybody gets."""


@dataclass
class Tally:
    """What became of every request of every visitor."""

    seconds: dict[str, list[float]] = field(default_factory=dict)  # by kind, of those answered
    lost: list[str] = field(default_factory=list)
    abandoned: int = 0  # by visitors who left before the answer came
    same: dict[tuple[object, ...], str] = field(default_factory=dict)  # what every visitor who asks this must get

    @property
    def answered(self) -> int:
        """How many requests were answered, and rightly."""
        return sum(len(each) for each in self.seconds.values())

    async def count(self, kind: str, who: str, asked: Awaitable[Any]) -> Any:
        """Return what was asked for, or None where it was lost; counted either way."""
        began = time.monotonic()
        try:
            found = await asyncio.wait_for(asked, PATIENCE)
        except asyncio.CancelledError:
            raise
        except Exception as failure:  # whatever it is, the visitor has no answer
            self.lost.append(f"{kind} of {who}: {type(failure).__name__}: {str(failure)[:200]}")
            return None
        self.seconds.setdefault(kind, []).append(time.monotonic() - began)
        return found

    def expect_same(self, key: tuple[object, ...], content: str) -> None:
        """Hold an answer against the one that others got.

        Raises:
            WrongAnswerError: they got another.
        """
        digest = hashlib.sha256(content.encode()).hexdigest()
        if self.same.setdefault(key, digest) != digest:
            raise WrongAnswerError(f"{key} is not what another visitor got")


class Visitor:
    """One open page, as a browser has it: a session, the values of its controls, and a connection that says it is there."""

    def __init__(self, client: httpx.AsyncClient, name: str, config: dict[str, Any]) -> None:
        """Stand at a page whose layout is known."""
        self._client = client
        self.name = name
        self.session = f"{random.SystemRandom().getrandbits(60):012x}"
        self._functions = config["dependencies"]
        self._components = {each["id"]: each for each in config["components"]}
        self.values: dict[int, Any] = {each["id"]: each["props"].get("value") for each in config["components"]}
        self.hidden: set[int] = set()

    def find(self, name: str) -> int:
        """Return the number of the component of an elem_id."""
        for number, each in self._components.items():
            if each["props"].get("elem_id") == name:
                return number
        raise LookupError(f"the page has no {name}")

    def find_that(self, event: str, shows: str) -> int:
        """Return the number of a component without a name: the last one whose event changes what the named one shows."""
        shown = self.find(shows)
        found = [
            target
            for each in self._functions
            for target, what in each["targets"]
            if what == event and shown in each["outputs"] and self._components[target]["type"] in ("button", "number")
        ]
        if not found:
            raise LookupError(f"no {event} changes {shows}")
        return int(found[-1])

    def value(self, name: str) -> Any:
        """Return what a component shows now."""
        return self.values[self.find(name)]

    async def ask(self, component: int | None, event: str, value: Any = None) -> None:
        """Do what a person does to a component, and take in all that comes of it.

        Args:
            component: its number; None for the page itself.
            event: such as "click".
            value: that the component has then; None: the one it has.
        """
        if value is not None and component is not None:
            self.values[component] = value
        for number in self._called(component, event):
            await self._run(number, component)

    async def leave_asking(self, component: int, event: str) -> None:
        """Ask, and be gone before the answer."""
        for number in self._called(component, event):
            await self._join(number, component)

    async def upload(self, name: str, content: bytes) -> dict[str, Any]:
        """Upload a picture and return what a control holds of it."""
        answer = await self._client.post(f"{API}/upload", files={"files": (name, content, "image/png")})
        answer.raise_for_status()
        (path,) = answer.json()
        return {
            "path": path,
            "url": f"{API}/file={path}",
            "orig_name": name,
            "size": len(content),
            "mime_type": "image/png",
            "meta": {"_type": "gradio.FileData"},
        }

    @asynccontextmanager
    async def staying(self) -> AsyncIterator[None]:
        """Hold the connection that tells the server that the page is open."""

        async def stay() -> None:
            with suppress(httpx.HTTPError):
                async with self._client.stream("GET", f"{API}/heartbeat/{self.session}", timeout=None) as answer:
                    async for _ in answer.aiter_bytes():
                        pass

        staying = asyncio.create_task(stay())
        try:
            yield
        finally:
            staying.cancel()
            with suppress(asyncio.CancelledError):
                await staying

    def _called(self, component: int | None, event: str) -> list[int]:
        found = [
            each["id"]
            for each in self._functions
            if any(what == event and (component is None or target == component) for target, what in each["targets"])
        ]
        if not found:
            raise LookupError(f"nothing follows from {event} of {component}")
        return found

    async def _join(self, number: int, trigger: int | None) -> str:
        function = next(each for each in self._functions if each["id"] == number)
        states = {each for each in function["inputs"] if self._components[each]["type"] == "state"}
        data = [None if each in states else self.values[each] for each in function["inputs"]]
        asked = {"data": data, "event_data": None, "fn_index": number, "trigger_id": trigger, "session_hash": self.session}
        answer = await self._client.post(f"{API}/queue/join", json=asked)
        answer.raise_for_status()
        event: str = answer.json()["event_id"]
        return event

    async def _run(self, number: int, trigger: int | None) -> None:
        event = await self._join(number, trigger)
        outputs = next(each for each in self._functions if each["id"] == number)["outputs"]
        async with self._client.stream("GET", f"{API}/queue/data", params={"session_hash": self.session}) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if not line.startswith("data:"):
                    continue
                message = json.loads(line.removeprefix("data:"))
                if message["msg"] == "unexpected_error" or message.get("success") is False:
                    raise RuntimeError(str(message.get("message") or message.get("output")))
                if message["msg"] == "process_completed" and message["event_id"] == event:
                    for output, value in zip(outputs, message["output"]["data"], strict=True):
                        self._take(output, value)
                    return
        raise RuntimeError("the stream ended without an answer")

    def _take(self, component: int, value: Any) -> None:
        if not (isinstance(value, dict) and value.get("__type__") == "update"):
            self.values[component] = value
            return
        if "value" in value:
            self.values[component] = value["value"]
        if "visible" in value:
            (self.hidden.discard if value["visible"] else self.hidden.add)(component)


class Picture:
    """A picture that no other visitor has."""

    def __init__(self, seed: int, side: int) -> None:
        """Draw it."""
        self.pixels = np.random.default_rng(seed).integers(0, 256, size=(side, side), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(self.pixels).save(stream, format="PNG")
        self.content = stream.getvalue()

    def check(self, page: str, words: str) -> None:
        """Find the picture of these words on a page.

        Raises:
            WrongAnswerError: it is not there, or another is in its place.
        """
        for source, alternative in re.findall(r'src="data:image/png;base64,([^"]+)" alt="([^"]*)"', page):
            if alternative == words:
                self.check_png(base64.b64decode(source))
                return
        raise WrongAnswerError(f"no picture is called {words!r}: {page[:200]}")

    def check_png(self, content: bytes) -> None:
        """Hold a PNG against this picture.

        Raises:
            WrongAnswerError: they differ.
        """
        if not np.array_equal(np.asarray(Image.open(io.BytesIO(content)).convert("L")), self.pixels):
            raise WrongAnswerError("this is another visitor's picture")


@dataclass(frozen=True, kw_only=True)
class Visit:
    """How a visitor spends its time."""

    number: int
    models: tuple[str, ...]  # it looks at each in turn; uploads go to the first, whose images are grey
    side: int  # of that one's images
    until: float  # time.monotonic()
    rounds: int = 1_000_000
    pause: tuple[float, float] = (0.3, 1.5)  # seconds between two things, as people take them


async def visit(url: str, plan: Visit, tally: Tally) -> None:
    """Visit the page again and again, each time as somebody new, until the time is over."""
    chance = random.Random(plan.number)
    who = f"visitor {plan.number}"
    limits = httpx.Limits(max_connections=8, max_keepalive_connections=4)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=limits, trust_env=False) as client:
        for done in range(plan.rounds):
            if time.monotonic() >= plan.until:
                return
            visitor = await tally.count("open the page", who, _arrive(client, who))
            if visitor is None:
                continue
            async with visitor.staying():
                model = plan.models[(plan.number + done) % len(plan.models)]
                for kind, act in _actions(visitor, plan, tally, model, plan.number * 1000 + done):
                    if time.monotonic() >= plan.until:
                        return
                    await tally.count(kind, who, act())
                    await asyncio.sleep(chance.uniform(*plan.pause))
                if chance.random() < 0.3:
                    await visitor.leave_asking(visitor.find_that("click", "sampling-pictures"), "click")
                    tally.abandoned += 1


async def _arrive(client: httpx.AsyncClient, who: str) -> Visitor:
    page = await client.get("")
    page.raise_for_status()
    for asset in re.findall(r'(?:src|href)="\./(assets/[^"]+)"', page.text)[:2]:
        (await client.get(asset)).raise_for_status()
    config = await client.get("config")
    config.raise_for_status()
    visitor = Visitor(client, who, config.json())
    await visitor.ask(visitor.find("room-variables"), "select")  # as a browser does by itself
    return visitor


def _actions(
    visitor: Visitor, plan: Visit, tally: Tally, model: str, seed: int
) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
    picture = Picture(seed, plan.side)

    async def start() -> None:
        await visitor.ask(visitor.find_that("submit", "variables-code"), "submit", seed % 97)
        tally.expect_same((model, "start", seed % 97), visitor.value("variables-code"))

    async def slide() -> None:
        before = np.array(json.loads(visitor.value("variables-code")))
        slider = visitor.find(f"variable-{seed % 4}")
        wanted = round(0.02 * (seed % 100) - 1.0, 2)
        await visitor.ask(slider, "input", wanted)
        now = np.array(json.loads(visitor.value("variables-code")))
        moved = np.abs(now - before) > 0.03  # a slider's own steps are finer
        if moved.sum() > 1 or np.abs(now - wanted).min() > 0.03:
            raise WrongAnswerError(f"{int(moved.sum())} entries moved, none to {wanted}")

    async def download() -> None:
        (link,) = re.findall(r'href="data:application/octet-stream;base64,([^"]+)"', visitor.value("variables-downloads"))
        code = np.load(io.BytesIO(base64.b64decode(link)), allow_pickle=False)
        if not np.allclose(code, json.loads(visitor.value("variables-code")), atol=1e-4):
            raise WrongAnswerError("the download is another code")

    async def choose(name: str) -> None:
        chosen = visitor.find("model")
        if visitor.values[chosen] != name:
            await visitor.ask(chosen, "input", name)

    async def enter(room: str) -> None:
        await visitor.ask(visitor.find(f"room-{room}"), "select")

    async def relocate() -> None:
        await choose(plan.models[0])
        await enter("map")
        await visitor.ask(visitor.find_that("click", "relocation-pictures"), "click")
        own = await visitor.upload(f"../visitor {plan.number}.png", picture.content)
        await visitor.ask(visitor.find("relocation-upload"), "upload", own)
        picture.check(visitor.value("relocation-pictures"), "upload 1, the original")

    async def fetch_upload() -> None:
        own = visitor.value("relocation-upload")
        answer = await visitor._client.get(own["url"])
        answer.raise_for_status()
        picture.check_png(answer.content)

    async def judge() -> None:
        await enter("range")
        own = await visitor.upload("mine.png", picture.content)
        await visitor.ask(visitor.find("range-upload"), "upload", [own])
        shown = visitor.value("range-pictures")
        picture.check(shown, "picture 1, the image")
        if "la-verdict" not in shown:
            raise WrongAnswerError("there is no verdict")
        tally.expect_same(
            (plan.models[0], "own samples"), shown.partition("For comparison")[2].partition("In the error maps")[0][:500]
        )

    async def sample() -> None:
        await choose(model)
        await enter("sampling")
        await visitor.ask(visitor.find("sampling-seed"), "submit", seed % 11)
        tally.expect_same((model, "samples", seed % 11), visitor.value("sampling-pictures"))

    async def examine() -> None:
        await enter("health")
        tally.expect_same((model, "health"), visitor.value("health-numbers"))
        await visitor.ask(visitor.find("health-variable"), "submit", seed % 4)
        tally.expect_same((model, "traversal", seed % 4), visitor.value("health-traversal"))

    async def begin() -> None:
        await choose(model)

    return [
        ("choose a model", begin),
        ("start from an image", start),
        ("move a slider", slide),
        ("move a slider", slide),
        ("download a code", download),
        ("relocate an upload", relocate),
        ("fetch the upload", fetch_upload),
        ("range of an upload", judge),
        ("sample", sample),
        ("health sheet", examine),
    ]


async def browse(url: str, plan: Visit, tally: Tally, chromium: str | None) -> None:
    """Visit the page in a real Chromium, again and again; what it asks of others, and its errors, count as lost.

    Raises:
        ModuleNotFoundError: playwright is not installed.
    """
    from playwright.async_api import async_playwright

    who = "Chromium"
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
        )
        try:
            for done in range(plan.rounds):
                if time.monotonic() >= plan.until:
                    return
                context = await browser.new_context()
                context.set_default_timeout(PATIENCE * 1000)
                page = await context.new_page()
                page.on("request", lambda request: tally.lost.extend(_outside(request.url, url)))
                page.on("pageerror", lambda failure: tally.lost.append(f"{who}: {failure}"))
                page.on("console", lambda said: tally.lost.append(f"{who}: {said.text}") if said.type == "error" else None)
                for kind, act in _clicks(page, url, Picture(plan.number * 1000 + done, plan.side)):
                    if time.monotonic() >= plan.until:
                        break
                    await tally.count(kind, who, act())
                    await asyncio.sleep(plan.pause[1])
                await context.close()
        finally:
            await browser.close()


def _outside(asked: str, home: str) -> list[str]:
    return [] if asked.startswith((home, "data:", "blob:")) else [f"Chromium asked {asked}"]


def _clicks(page: Any, url: str, picture: Picture) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
    async def sources(inside: str) -> list[str]:
        found: list[str] = await page.eval_on_selector_all(f"{inside} img", "images => images.map(image => image.src)")
        return found

    async def changed(inside: str, before: list[str]) -> None:
        until = time.monotonic() + PATIENCE
        while (now := await sources(inside)) == before or not now:
            if time.monotonic() > until:
                raise TimeoutError(f"{inside} did not change")
            await asyncio.sleep(0.1)

    async def arrive() -> None:
        await page.goto(url)
        await page.wait_for_selector("#variables-pictures img")

    async def slide() -> None:
        before = await sources("#variables-pictures")
        await page.locator("#variable-0 input[type=range]").focus()
        await page.keyboard.press("PageUp")
        await changed("#variables-pictures", before)

    async def relocate() -> None:
        await page.get_by_role("tab", name="Map", exact=True).click()
        await page.wait_for_selector("#relocation-pictures img")
        file = {"name": "mine.png", "mimeType": "image/png", "buffer": picture.content}
        await page.set_input_files("#relocation-upload input[type=file]", [file])
        shown = page.locator("img[alt='upload 1, the original']")
        await shown.wait_for()
        picture.check_png(base64.b64decode((await shown.get_attribute("src")).partition(",")[2]))

    async def judge() -> None:
        await page.get_by_role("tab", name="Range", exact=True).click()
        file = {"name": "mine.png", "mimeType": "image/png", "buffer": picture.content}
        await page.set_input_files("#range-upload input[type=file]", [file])
        shown = page.locator("img[alt='picture 1, the image']")
        await shown.wait_for()
        picture.check_png(base64.b64decode((await shown.get_attribute("src")).partition(",")[2]))

    async def sample() -> None:
        await page.get_by_role("tab", name="Sampling", exact=True).click()
        await page.wait_for_selector("#sampling-pictures img")
        before = await sources("#sampling-pictures")
        await page.get_by_role("button", name="Next seed").click()
        await changed("#sampling-pictures", before)

    async def examine() -> None:
        await page.get_by_role("tab", name="Health", exact=True).click()
        await page.wait_for_selector("#health-traversal img")

    return [
        ("open the page", arrive),
        ("move a slider", slide),
        ("relocate an upload", relocate),
        ("range of an upload", judge),
        ("sample", sample),
        ("health sheet", examine),
    ]
