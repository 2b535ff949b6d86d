"""Every room of the explorer, used as a person would."""

import base64
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.browser

PATIENCE = 120  # seconds: two busy cores may take long for what takes one

# What a room shows when it has opened.
ROOMS = {
    "Variables": "#variables-pictures img",
    "Map": "#relocation-pictures img",
    "Sectors": "#sectors-pictures img",
    "Range": "#range-upload",
    "Sampling": "#sampling-pictures img",
    "Health": "#health-traversal img",
}


# Whether the code that is shown has the value at which the first slider stands.
_DRAWN = """() => {
    const variable = Number(document.querySelector('#variable-0 label').innerText.match(/variable (\\d+)/)[1]);
    const code = JSON.parse(document.querySelector('#variables-code textarea').value);
    return Math.abs(code[variable] - Number(document.querySelector('#variable-0 input[type=number]').value)) < 1e-3;
}"""


def _enter(page: Any, room: str) -> None:
    page.get_by_role("tab", name=room, exact=True).click()
    page.wait_for_selector(ROOMS[room])


def _sources(page: Any, inside: str) -> list[str]:
    found: list[str] = page.eval_on_selector_all(f"{inside} img", "images => images.map(image => image.src)")
    return found


def _until_changed(page: Any, inside: str, before: list[str]) -> list[str]:
    """Wait until pictures are others than before, and return them."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        now = _sources(page, inside)
        if now and now != before:
            return now
        page.wait_for_timeout(50)
    return pytest.fail(f"the pictures in {inside} did not change")


def _pixels(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))).astype(int)


def _png(size: tuple[int, int] = (28, 28), mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    if mode == "1":
        Image.new("1", size).save(stream, format="PNG")
    else:
        values = np.random.default_rng(0).integers(0, 256, size=(*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(values).save(stream, format="PNG")
    return stream.getvalue()


def _animation() -> bytes:
    stream = io.BytesIO()
    first, second = (Image.new("RGB", (40, 40), colour) for colour in ("white", "black"))
    first.save(stream, format="GIF", save_all=True, append_images=[second])
    return stream.getvalue()


def _upload(page: Any, field: str, *files: tuple[str, bytes, str]) -> None:
    page.set_input_files(
        f"{field} input[type=file]", [{"name": name, "mimeType": kind, "buffer": content} for name, content, kind in files]
    )


def _clear(page: Any, field: str) -> None:
    page.locator(f"{field} button[aria-label='Clear']").first.click()
    page.wait_for_selector(f"{field} input[type=file]", state="attached")


# Variables


def test_moving_a_slider_redraws_and_resetting_brings_the_picture_back(visit: Callable[..., Any]) -> None:
    page = visit()
    page.get_by_role("button", name="The code").click()
    at_first = _sources(page, "#variables-pictures")
    slider = page.locator("#variable-0 input[type=range]")
    slider.focus()
    started = time.monotonic()
    for _ in range(5):
        page.keyboard.press("PageUp")
    moved = _until_changed(page, "#variables-pictures", at_first)
    print(f"a slider moved by the keyboard redraws after {time.monotonic() - started:.2f} s")
    assert moved[1:] == at_first[1:]  # the start and the original stay
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.95, box["y"] + box["height"] / 2, steps=6)
    page.mouse.up()
    page.wait_for_function(_DRAWN)  # the last of the moves is, and with it all of them
    dragged = _sources(page, "#variables-pictures")
    assert dragged[0] not in (at_first[0], moved[0])
    page.get_by_role("button", name="Reset sliders").click()
    assert _until_changed(page, "#variables-pictures", dragged) == at_first


def test_a_collapsed_variable_is_folded_away_and_changes_nothing_to_be_seen(visit: Callable[..., Any]) -> None:
    page = visit()
    assert not page.locator("#collapsed-0 input[type=range]").is_visible()
    page.get_by_role("button", name="Collapsed variables").click()
    field = page.locator("#collapsed-0 input[type=number]")
    field.wait_for()
    page.get_by_role("button", name="The code").click()
    before = page.locator("#variables-code textarea").input_value()
    field.fill("2.5")
    field.press("Enter")
    page.wait_for_function("before => document.querySelector('#variables-code textarea').value !== before", arg=before)
    now, start, *_ = [_pixels(source) for source in _sources(page, "#variables-pictures")]
    assert np.abs(now - start).max() <= 2  # of 255


def test_codes_start_from_images_seeds_and_the_mean_and_are_copied_and_saved(visit: Callable[..., Any]) -> None:
    page = visit()
    pictures = page.locator("#variables-pictures img")
    page.get_by_role("button", name="Next", exact=True).click()
    page.wait_for_selector("#variables-pictures img[alt='Original: image 1']")
    assert pictures.count() == 3
    page.get_by_label("a random code").check()
    page.wait_for_selector("#variables-pictures img[alt$=': random code, seed 1']")
    assert pictures.count() == 2  # now, and as it started: there is no original
    page.get_by_label("the mean code").check()
    page.wait_for_selector("#variables-pictures img[alt$=': mean of 400 codes']")
    assert pictures.count() == 2
    page.get_by_role("button", name="Next", exact=True).wait_for(state="hidden")  # of means there is one
    page.get_by_role("button", name="The code").click()
    text = page.locator("#variables-code textarea").input_value()
    page.locator("#variables-code button").first.click()
    assert json.loads(page.evaluate("navigator.clipboard.readText()")) == json.loads(text)
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download code.npy").click()
    code = np.load(Path(saved.value.path()), allow_pickle=False)
    assert np.allclose(code, json.loads(text), atol=1e-5)
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download code.json").click()
    record = json.loads(Path(saved.value.path()).read_text())
    assert record["model"] == "zoo:digits-dense"
    assert np.allclose(record["code"], code)


def test_another_model_fills_the_room_anew(visit: Callable[..., Any]) -> None:
    page = visit()
    before = _sources(page, "#variables-pictures")
    page.locator("#model input").click()
    page.get_by_role("option", name="zoo:avatars-dcgan").click()
    now = _until_changed(page, "#variables-pictures", before)
    assert len(now) == 3
    assert "zoo:avatars-dcgan has 64 variables" in page.inner_text("#room-variables, body")
    page.get_by_role("button", name="Further variables").click()
    slider = page.locator("#further-0 input[type=range]")
    slider.focus()
    page.keyboard.press("End")
    _until_changed(page, "#variables-pictures", now)


# Map, and what visitors upload


def test_images_are_relocated_and_an_upload_joins_them(visit: Callable[..., Any], tmp_path: Path) -> None:
    page = visit()
    _enter(page, "Map")
    first = _sources(page, "#relocation-pictures")
    assert len(first) == 4 * 6
    errors = page.inner_text("#relocation-errors")
    assert "R, source's reconstruction" in errors
    assert "What both models and the map between them lose together." in errors
    assert "fitted on images 0 to 319 of mnist:test, and measured on images 320 to 399 of mnist:test" in errors
    page.get_by_role("button", name="Other images").click()
    others = _until_changed(page, "#relocation-pictures", first)
    page.locator("#relocation-target input").click()
    page.get_by_role("option", name="zoo:digits-dense", exact=True).click()
    itself = _until_changed(page, "#relocation-pictures", others)
    assert itself[6:12] == itself[18:24]  # the target is the source
    _upload(page, "#relocation-upload", ("<b>mine</b>.png", _png((60, 40)), "image/png"))
    page.wait_for_selector("img[alt='upload 1, the original']")
    assert "60 x 40 pixels, its middle cut out and resized to 28 x 28" in page.inner_text("body")
    _clear(page, "#relocation-upload")
    page.wait_for_selector("img[alt='upload 1, the original']", state="detached")


@pytest.mark.parametrize(("room", "field"), [("Map", "#relocation-upload"), ("Range", "#range-upload")])
def test_wrong_uploads_get_a_message_and_no_stack_trace(visit: Callable[..., Any], room: str, field: str) -> None:
    page = visit()
    _enter(page, room)
    wrong = [
        ("notes.png", b"these are notes, and no picture", "no picture that can be read"),
        ("giant.png", _png((10_000, 10_000), "1"), "100 million; at most 16 million"),
        ("dot.png", _png((1, 1)), "too few to see anything"),
        ("cut.png", _png((64, 64))[:3000], "damaged"),
    ]
    for name, content, words in wrong:
        _upload(page, field, (name, content, "image/png"))
        page.locator("[role=alert]", has_text=words).wait_for()
        _clear(page, field)
        page.locator("[role=alert]", has_text=words).wait_for(state="detached")


def test_of_an_animated_gif_the_first_frame_is_taken_and_it_is_said(visit: Callable[..., Any]) -> None:
    page = visit()
    _enter(page, "Map")
    _upload(page, "#relocation-upload", ("moving.gif", _animation(), "image/gif"))
    page.wait_for_selector("img[alt='upload 1, the original']")
    assert "Of an animation the first frame is taken." in page.inner_text("body")


def test_two_visitors_do_not_see_each_others_images(visit: Callable[..., Any]) -> None:
    first, second = visit(), visit()
    for page in (first, second):
        _enter(page, "Map")
    _upload(first, "#relocation-upload", ("mine.png", _png(), "image/png"))
    first.wait_for_selector("img[alt='upload 1, the original']")
    mine = _sources(first, "#relocation-pictures")[0]
    before = _sources(second, "#relocation-pictures")
    second.get_by_role("button", name="Other images").click()
    assert mine not in _until_changed(second, "#relocation-pictures", before)
    assert second.locator("img[alt^='upload']").count() == 0


# Sectors


def test_signs_choose_a_sector_and_an_empty_one_says_so(visit: Callable[..., Any]) -> None:
    page = visit()
    _enter(page, "Sectors")
    first = _sources(page, "#sectors-pictures")
    members = page.inner_text("#sectors-occupancy")
    page.locator("#sign-0").get_by_label("−").check()
    _until_changed(page, "#sectors-pictures", first)
    assert page.inner_text("#sectors-occupancy") != members
    for place in range(6):
        sign = page.locator(f"#sign-{place}").get_by_label("+")
        if sign.is_visible():
            sign.check()
    page.locator("#sector-threshold input[type=number]").fill("1.5")
    page.locator("#sector-threshold input[type=number]").press("Enter")
    page.get_by_text("No image lies in this sector").wait_for()


# Range


def test_images_are_judged_beside_own_samples(visit: Callable[..., Any]) -> None:
    page = visit()
    _enter(page, "Range")
    page.locator("#range-try").click()
    page.wait_for_selector("#range-pictures .la-card")
    tried = _sources(page, "#range-pictures")
    assert len(tried) == 3 * (4 + 4)
    started = time.monotonic()
    _upload(page, "#range-upload", ("a.png", _png(), "image/png"), ("b.png", _png((300, 200)), "image/png"))
    judged = _until_changed(page, "#range-pictures", tried)
    print(f"a verdict on two images, own samples known, takes {time.monotonic() - started:.1f} s")
    assert len(judged) == 3 * (2 + 4)
    assert page.locator("#range-pictures .la-out-of-range").count() == 2  # noise is no digit
    assert "p = 0.01" in page.inner_text("#range-pictures")
    assert "picture 2" in page.inner_text("#range-pictures")
    assert "b.png" not in page.inner_text("#range-pictures")
    assert page.locator("#range-pictures .la-card", has_text="zoo:digits-dense, level 5 %").count() == 2


def test_pictures_that_one_model_judged_are_judged_by_another_without_being_uploaded_anew(visit: Callable[..., Any]) -> None:
    page = visit()
    _enter(page, "Range")
    again = page.locator("#range-again")
    assert not again.is_visible()
    _upload(page, "#range-upload", ("a.png", _png(), "image/png"))
    page.locator("#range-pictures .la-card", has_text="zoo:digits-dense, level 5 %").wait_for()
    page.locator("#model input").click()
    page.get_by_role("option", name="zoo:digits-dense-1", exact=True).click()
    page.get_by_text("The verdicts that stood here were those of zoo:digits-dense.").wait_for()
    assert page.locator("#range-pictures .la-card").count() == 0
    again.click()
    page.locator("#range-pictures .la-card", has_text="zoo:digits-dense-1, level 5 %").wait_for()
    assert page.locator("#range-pictures .la-card", has_text="picture 1").count() == 1
    _clear(page, "#range-upload")
    again.wait_for(state="hidden")


# Sampling


def test_a_seed_decides_what_every_sampler_draws(visit: Callable[..., Any]) -> None:
    page = visit()
    _enter(page, "Sampling")
    first = _sources(page, "#sampling-pictures")
    assert len(first) == 5 * 8
    page.get_by_role("button", name="Next seed").click()
    second = _until_changed(page, "#sampling-pictures", first)
    assert not set(first) & set(second)
    page.locator("#sampling-seed input").fill("0")
    page.locator("#sampling-seed input").press("Enter")
    assert _until_changed(page, "#sampling-pictures", second) == first


# Health


def test_the_sheet_has_a_chart_and_a_table_whose_rows_show_their_variable(visit: Callable[..., Any]) -> None:
    page = visit()
    _enter(page, "Health")
    assert page.locator("#health-chart .la-columns li").count() == 16
    assert "variable 7, active: gain" in str(page.locator("#health-chart .la-columns li").first.get_attribute("title"))
    shown = _sources(page, "#health-traversal")
    page.locator("#health-table [data-testid='cell-2-2']").click()
    row = _until_changed(page, "#health-traversal", shown)
    page.locator("#health-variable input").fill("0")
    page.locator("#health-variable input").press("Enter")
    _until_changed(page, "#health-traversal", row)
    page.locator("#health-measure").get_by_label("KL, nats").check()
    page.get_by_text("divergence of its posteriors from the prior").wait_for()


# The page as a whole


def test_rooms_are_entered_by_the_keyboard(visit: Callable[..., Any]) -> None:
    page = visit()
    page.get_by_role("tab", name="Sectors", exact=True).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(ROOMS["Sectors"])
    page.locator("#sign-0 input[type=radio]:checked").focus()
    before = _sources(page, "#sectors-pictures")
    page.keyboard.press("Shift+Tab")  # to its neighbour; gradio leaves the arrows to sliders
    page.keyboard.press("Space")
    _until_changed(page, "#sectors-pictures", before)


def test_how_far_an_answer_is_stands_in_one_place(visit: Callable[..., Any]) -> None:
    page = visit()
    page.evaluate(
        """() => {
            window.most = 0;
            setInterval(() => {
                const shown = [...document.querySelectorAll('[data-testid=status-tracker]')].filter(
                    each => each.checkVisibility({opacityProperty: true, visibilityProperty: true}) && each.offsetHeight > 0
                );
                window.most = Math.max(window.most, shown.length);
            }, 5);
        }"""
    )
    page.get_by_label("a random code").check()
    page.wait_for_selector("#variables-pictures img[alt$=': random code, seed 0']")
    for room in ("Map", "Sectors", "Sampling", "Health", "Range"):
        _enter(page, room)
    page.locator("#range-try").click()  # takes its time whatever visitors before have asked
    page.wait_for_selector("#range-pictures .la-card")
    assert page.evaluate("window.most") == 1


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_every_room_fits_and_every_picture_has_words(
    visit: Callable[..., Any], screenshots: Path, width: int, dark: bool
) -> None:
    page = visit(width=width, dark=dark)
    for room, shown in ROOMS.items():
        _enter(page, room)
        if room == "Range":
            page.locator("#range-try").click()
            page.wait_for_selector("#range-pictures .la-card")
        page.wait_for_timeout(400)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{room} is wider than {width} pixels"
        wordless = page.eval_on_selector_all("img", "images => images.filter(image => !image.alt.trim()).length")
        assert wordless == 0, f"{room} has pictures without words"
        assert page.locator(shown).first.is_visible()
        page.screenshot(path=screenshots / f"{room.lower()}-{width}-{'dark' if dark else 'light'}.png", full_page=True)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)")
    assert (sum(ground) < 200) == dark


def test_the_server_asked_no_other_host_for_anything(visit: Callable[..., Any], server: Any) -> None:
    visit()
    hosts = set(server.audit.read_text(encoding="utf-8").split())
    assert hosts
    assert hosts <= {"127.0.0.1", "localhost", "::1"}
