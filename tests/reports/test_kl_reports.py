"""The pages of the KL studies: what they say is what was found, pictures hold it, and clouds turn in a real browser."""

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latlas.base.provenance import Provenance
from latlas.numerics.normality import CloudShape
from latlas.reports.kl_curve import kl_curve_report
from latlas.reports.latent_cloud import latent_cloud_report, turning_page, write_latent_cloud
from latlas.reports.page import render
from latlas.reports.trajectories import moving_picture, trajectories_report, trajectory_animation, write_trajectories
from latlas.studies.kl_curve import study_kl_curve
from latlas.studies.latent_cloud import ARMS, Cloud, LatentCloudStudy
from latlas.studies.trajectories import TrajectoryStudy
from latlas.training.callbacks import HealthRecord, Trajectories


@pytest.fixture
def paths(generator: torch.Generator) -> TrajectoryStudy:
    """Ten circles that part and shrink."""
    share = torch.linspace(0, 1, 7)[:, None, None]
    mean = share * 2 * torch.randn(1, 10, 2, generator=generator)
    log_variance = (-6.0 * share).expand(7, 10, 2).clone()
    first = Trajectories(steps=torch.arange(7) * 9, mean=mean, log_variance=log_variance)
    later = Trajectories(steps=torch.tensor([54, 108]), mean=mean[-2:], log_variance=log_variance[-2:])
    health = [
        HealthRecord(step=s, epoch=e, kl_nats=[1.0, 2.0], variance_of_means=[0.9, 0.8], mean_posterior_variance=[0.1, 0.1])
        for e, s in ((1, 54), (2, 108))
    ]
    return TrajectoryStudy(
        images="planted",
        epochs=2,
        labels=torch.arange(10),
        first=first,
        later_labels=torch.arange(10),
        later=later,
        health=health,
        provenance=Provenance(made_by="test"),
    )


@pytest.fixture
def clouds(generator: torch.Generator) -> LatentCloudStudy:
    def cloud(arm: Any, frechet: float) -> Cloud:
        shape = CloudShape(energy=0.01, empty=0.1, energy_to_prior=0.05)
        means = torch.randn(200, 3, generator=generator) * (1.0 if arm == "sampling" else 3.0)
        return Cloud(
            arm=arm,
            seed=0,
            means=means,
            labels=torch.arange(200) % 10,
            deviations=means.std(0).tolist(),
            shape=shape,
            sampled_shape=None,
            frechet=frechet,
            frechet_fitted=2.0,
            frechet_reconstructions=1.0,
            error=0.03,
            slices=torch.rand(125, 1, 8, 8, generator=generator),
        )

    return LatentCloudStudy(
        clouds=[cloud("sampling", 10.0), cloud("no sampling", 40.0)],
        features="distance",
        samples=100,
        normal=CloudShape(energy=0.001, empty=0.0, energy_to_prior=0.001),
        provenance=Provenance(made_by="test"),
    )


def test_the_curves_page_says_that_formula_and_search_agree_and_warns_where_they_do_not() -> None:
    study = study_kl_curve()
    assert kl_curve_report(study).summary[0].level == "good"
    off = replace(study, curves=[replace(study.curves[0], found_minimum=0.02), *study.curves[1:]])
    assert kl_curve_report(off).summary[0].level == "warning"
    assert "<svg" in render(kl_curve_report(study))


def test_the_animation_has_a_frame_a_moment_on_pure_white_and_plays_over_and_over(paths: TrajectoryStudy) -> None:
    with Image.open(io.BytesIO(trajectory_animation(paths))) as moving:
        assert getattr(moving, "n_frames", 1) == 7
        assert moving.info["loop"] == 0
        first = moving.convert("RGB")
        moving.seek(6)
        last = moving.convert("RGB")
        assert moving.info["duration"] > 10 * 60  # the end is held
    assert last.getpixel((479, 479)) == first.getpixel((479, 479)) == (255, 255, 255)
    # All begin as one large circle, and end as ten small ones: less of the picture is coloured at the end.
    coloured = [int((np.asarray(image) != 255).any(axis=2).sum()) for image in (first, last)]
    assert coloured[0] > 1.5 * coloured[1]


def test_where_less_motion_is_asked_for_the_last_frame_stands_still(paths: TrajectoryStudy) -> None:
    animation = trajectory_animation(paths)
    drawing = moving_picture(animation)
    assert "prefers-reduced-motion: reduce" in drawing
    still, moving = (base64.b64decode(found) for found in re.findall(r"base64,([^\"]+)", drawing))
    assert moving == animation
    with Image.open(io.BytesIO(still)) as one, Image.open(io.BytesIO(animation)) as many:
        many.seek(6)
        assert one.convert("RGB").tobytes() == many.convert("RGB").tobytes()


def test_posteriors_that_do_not_shrink_are_no_good_finding(paths: TrajectoryStudy) -> None:
    assert [finding.level for finding in trajectories_report(paths).summary] == ["good", "good"]
    wide = replace(paths.first, log_variance=torch.zeros_like(paths.first.log_variance))
    growing = replace(paths.later, log_variance=paths.later.log_variance.flip(0))
    found = trajectories_report(replace(paths, first=wide, later=growing)).summary
    assert [finding.level for finding in found] == ["note", "note"]


def test_pages_are_written_whole_with_what_lies_beside_them(
    paths: TrajectoryStudy, clouds: LatentCloudStudy, tmp_path: Path
) -> None:
    page = write_trajectories(paths, tmp_path / "paths")
    assert {each.name for each in page.parent.iterdir()} == {"report.html", "report.json", "config.json", "trajectories.gif"}
    page = write_latent_cloud(clouds, tmp_path / "clouds")
    assert {each.name for each in page.parent.iterdir()} == {"report.html", "report.json", "config.json", "cloud.html"}
    assert json.loads((page.parent / "report.json").read_text(encoding="utf-8"))["lower_with_sampling"]["frechet"] == 1
    assert 'href="cloud.html"' in page.read_text(encoding="utf-8")


def test_a_seed_in_which_sampling_is_not_lower_is_a_finding_and_no_success(clouds: LatentCloudStudy) -> None:
    levels = [finding.level for finding in latent_cloud_report(clouds).summary]
    assert levels == ["good", "note", "note", "note"]  # the distance is lower; the others are equal


def test_the_turning_page_holds_every_point_to_a_thousandth(clouds: LatentCloudStudy) -> None:
    text = turning_page(clouds)
    content = json.loads(re.search(r'id="content">(.*?)</script>', text, re.S).group(1))  # type: ignore[union-attr]
    for arm, found in zip(ARMS, content["clouds"], strict=True):
        raw = torch.frombuffer(bytearray(base64.b64decode(found["places"])), dtype=torch.int16).view(-1, 3)
        places = raw.double() / content["steps"] * found["extent"]
        torch.testing.assert_close(places, clouds.of(arm)[0].means.double(), atol=1e-3, rtol=0)
    assert "http" not in text.replace("http-equiv", "")


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1400, "light")])
def test_clouds_turn_with_the_keys_and_the_mouse_and_ask_no_host(
    width: int, scheme: str, browser: Any, clouds: LatentCloudStudy, tmp_path: Path
) -> None:
    path = write_latent_cloud(clouds, tmp_path / "clouds").parent / "cloud.html"
    asked: list[str] = []
    said: list[str] = []
    drawn = "Promise.all([new Promise(requestAnimationFrame), new Promise(done => setTimeout(done, 60))]).then(() => "
    picture = drawn + "[...document.querySelectorAll('canvas')].map(canvas => canvas.toDataURL()).join())"
    page = browser.new_page(viewport={"width": width, "height": 1400}, color_scheme=scheme)
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(path.as_uri())
    start = page.evaluate(picture)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")  # past the link, on the first cloud
    assert page.evaluate("document.activeElement.tagName") == "CANVAS"
    page.keyboard.press("ArrowRight")
    turned = page.evaluate(picture)
    page.keyboard.press("0")
    back = page.evaluate(picture)
    canvas = page.locator("canvas").first
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 80, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] + 140, box["y"] + 100, steps=4)
    page.mouse.up()
    dragged = page.evaluate(picture)
    page.get_by_role("button", name="Set back").click()
    page.get_by_label("7").uncheck()
    fewer = page.evaluate(picture)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.close()
    assert start == back
    assert len({start, turned, dragged, fewer}) == 4
    assert [address for address in asked if not address.startswith(("file:", "data:"))] == []
    assert said == []
