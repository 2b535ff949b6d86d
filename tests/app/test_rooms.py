"""What happens in the rooms, held against a model whose every pixel is known."""

import base64
import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from latlas.app.charts import Atlas
from latlas.app.markup import Column, Row, chart, heat_png, note, rows
from latlas.app.measured import codes_of, health
from latlas.app.rooms import health as health_room
from latlas.app.rooms import relocation, sampling, sectors, variables
from latlas.base.errors import CapabilityError, ImageFormatError, SettingError
from latlas.reports import palette
from latlas.reports.pictures import grid, heat


def _pictures(html: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in found]


# Room 1


def test_sliders_that_nobody_touched_leave_the_code_to_the_last_digit(atlas: Atlas) -> None:
    chart = atlas.chart("painter")
    begun = variables.start(atlas, chart, "a data image", 3)
    active, ignored, count = variables.sliders(atlas, chart, begun.code)
    shown = [*active, *ignored]
    assert torch.equal(variables.moved(begun.code, shown, [slider.value for slider in shown]), begun.code)
    assert count == 2
    assert [slider.variable for slider in ignored] in ([4, 5], [5, 4])


def test_a_moved_slider_changes_its_variable_and_pixel_and_no_other(atlas: Atlas) -> None:
    chart = atlas.chart("painter")
    begun = variables.start(atlas, chart, "a data image", 3)
    active, _, _ = variables.sliders(atlas, chart, begun.code)
    values = [slider.value for slider in active]
    values[0] += 1.0
    changed = variables.moved(begun.code, active, values)
    difference = changed - begun.code
    assert difference[active[0].variable] == pytest.approx(1.0)
    assert difference.count_nonzero() == 1
    moved = variables.image_of(chart, changed) - variables.image_of(chart, begun.code)
    assert moved.count_nonzero() == 1


def test_a_collapsed_slider_changes_nothing_that_is_seen(atlas: Atlas) -> None:
    chart = atlas.chart("painter")
    begun = variables.start(atlas, chart, "the mean code", 0)
    _, ignored, _ = variables.sliders(atlas, chart, begun.code)
    changed = variables.moved(begun.code, ignored, [2.0] * len(ignored))
    assert not torch.equal(changed, begun.code)
    assert torch.equal(variables.image_of(chart, changed), variables.image_of(chart, begun.code))


def test_a_start_from_an_image_is_its_code_and_over_the_end_the_first_follows(atlas: Atlas) -> None:
    chart = atlas.chart("painter")
    codes = codes_of(atlas, chart).mean
    assert torch.equal(variables.start(atlas, chart, "a data image", 7).code, codes[7])
    assert torch.equal(variables.start(atlas, chart, "a data image", len(codes) + 7).code, codes[7])
    assert torch.allclose(variables.start(atlas, chart, "the mean code", 0).code, codes.mean(dim=0), atol=1e-6)


def test_a_random_code_is_the_seeds_own(atlas: Atlas) -> None:
    chart = atlas.chart("painter")
    first, again, other = (variables.start(atlas, chart, "a random code", seed).code for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_nonsense_starts_are_refused(atlas: Atlas) -> None:
    with pytest.raises(SettingError, match="starts from"):
        variables.start(atlas, atlas.chart("painter"), "nowhere", 0)
    with pytest.raises(SettingError, match="numbered from 0"):
        variables.start(atlas, atlas.chart("painter"), "a data image", -1)
    with pytest.raises(CapabilityError, match="Start from an image"):
        variables.start(atlas, atlas.chart("mute"), "a random code", 0)


def test_a_code_can_be_copied_and_saved_and_read_back(atlas: Atlas) -> None:
    chart = atlas.chart("painter")
    begun = variables.start(atlas, chart, "a data image", 0)
    assert torch.allclose(torch.tensor(json.loads(variables.written(begun.code))), begun.code, atol=1e-5)
    links = re.findall(r'download="([^"]+)" href="data:[^;]+;base64,([^"]+)"', variables.saved(chart, begun, begun.code))
    files = {name: base64.b64decode(content) for name, content in links}
    assert np.array_equal(np.load(io.BytesIO(files["code.npy"]), allow_pickle=False), begun.code.numpy())
    record = json.loads(files["code.json"])
    assert record["model"] == "painter"
    assert torch.equal(torch.tensor(record["code"]), begun.code)


def test_a_channel_of_a_spatial_code_moves_as_one() -> None:
    code = torch.arange(8.0).view(2, 2, 2)
    slider = variables.Slider(variable=1, label="", low=0.0, high=10.0, value=5.5)
    changed = variables.moved(code, [slider], [6.5])
    assert torch.equal(changed[1], code[1] + 1)
    assert torch.equal(changed[0], code[0])


# Room 2


def test_a_relocation_between_two_models_of_one_image_space_is_exact(atlas: Atlas) -> None:
    found = relocation.relocation(atlas, atlas.chart("painter"), atlas.chart("turned"))
    assert found.originals.shape == (relocation.SHOWN, 1, 8, 8)
    # "turned" has the same variables in another order: a linear map loses nothing.
    assert torch.allclose(found.relocated, found.originals, atol=1e-4)
    assert torch.allclose(found.source, found.originals, atol=1e-5)
    assert torch.allclose(found.target, found.originals, atol=1e-5)


def test_relocated_images_are_such_as_the_map_was_not_fitted_on(atlas: Atlas) -> None:
    words = {
        word
        for seed in range(6)
        for word in relocation.relocation(atlas, atlas.chart("painter"), atlas.chart("turned"), seed=seed).words
    }
    assert len(words) > relocation.SHOWN  # another seed shows others
    assert {int(word.removeprefix("image ")) for word in words} <= set(range(96, 120))  # the last fifth


def test_each_error_says_in_plain_words_what_it_is_in_the_colour_of_its_row(atlas: Atlas) -> None:
    source, target = atlas.chart("painter"), atlas.chart("turned")
    comparison = relocation.comparison(atlas, source, target)
    html = relocation.errors(comparison)
    rows_of_images = relocation.pictures(relocation.relocation(atlas, source, target), source, target)
    for name, error, colour in (
        ("R, source&#x27;s reconstruction", comparison.R, palette.SOURCE),
        ("M, relocation", comparison.M, palette.RELOCATED),
        ("Target&#x27;s own reconstruction", comparison.target_R, palette.TARGET),
        ("Target&#x27;s mean code", comparison.mean_code, palette.BOUND),
    ):
        row = re.search(rf"<tr><th scope=\"row\">((?!</tr>).)*{re.escape(name)}((?!</tr>).)*</tr>", html)
        assert row is not None
        assert f"{error.mean:.4f}" in row[0]
        assert row[0].count(f"--la-colour:{colour}") == 2
        assert re.search(r"<small>[A-Z][^<]{20,}\.</small>", row[0])
        assert colour == palette.BOUND or f"--la-colour:{colour}" in rows_of_images
    assert "fitted on images 0 to 95 of painted, and measured on images 96 to 119 of painted" in html
    shares = [float(share) for share in re.findall(r"--la-share:([0-9.]+)", html)]
    assert max(shares) == 1.0
    assert shares[3] == pytest.approx(
        comparison.mean_code.mean / max(comparison.mean_code.mean, comparison.shuffled.mean), abs=1e-4
    )


def test_a_visitors_image_stands_first(atlas: Atlas, painter: SimpleNamespace) -> None:
    own = painter.painted(1).tensor()[0]
    found = relocation.relocation(atlas, atlas.chart("painter"), atlas.chart("turned"), uploads=[own])
    assert found.words[0] == "upload 1"
    assert torch.equal(found.originals[0], own)
    html = relocation.pictures(found, atlas.chart("painter"), atlas.chart("turned"))
    assert len(_pictures(html)) == 4 * relocation.SHOWN
    assert 'alt="upload 1, relocated and decoded by the target"' in html


def test_an_upload_that_was_cut_for_another_model_is_refused(atlas: Atlas) -> None:
    with pytest.raises(ImageFormatError, match="cut for another model"):
        relocation.relocation(atlas, atlas.chart("painter"), atlas.chart("turned"), uploads=[torch.zeros(3, 8, 8)])


def test_a_generator_without_encoder_is_reached_through_its_stream_and_takes_no_upload(painter: SimpleNamespace) -> None:
    silent = painter.chart("silent", turned=2)
    silent.model.lacks = ("encode",)
    atlas = Atlas(charts={"painter": painter.chart(), "silent": silent})
    found = relocation.relocation(atlas, atlas.chart("painter"), silent)
    assert torch.allclose(found.relocated, found.originals, atol=1e-3)
    with pytest.raises(CapabilityError, match="silent has no encoder"):
        relocation.relocation(atlas, atlas.chart("painter"), silent, uploads=[painter.painted(1).tensor()[0]])
    with pytest.raises(CapabilityError, match="Neither of the two encodes"):
        relocation.relocation(atlas, silent, silent)


def test_errors_are_written_as_measured(atlas: Atlas) -> None:
    found = relocation.comparison(atlas, atlas.chart("painter"), atlas.chart("turned"))
    assert f"{found.mean_code.mean:.4f}" in relocation.errors(found)


# Room 3


def test_a_sector_holds_the_codes_that_numpy_finds_there(atlas: Atlas) -> None:
    chart = atlas.chart("painter")
    names = sectors.leading(atlas, chart)
    assert names == (0, 1, 2, 3)
    found = sectors.inhabitants(atlas, chart, ["+", "−", "any", "any"], 0.25)
    codes = codes_of(atlas, chart).mean.double().numpy()
    scaled = (codes - codes.mean(axis=0)) / np.maximum(codes.std(axis=0), 1e-12)
    inside = (scaled[:, 0] > 0.25) & (scaled[:, 1] < -0.25)
    assert found.members.tolist() == np.flatnonzero(inside).tolist()
    expected = len(codes) * (scaled[:, 0] > 0.25).mean() * (scaled[:, 1] < -0.25).mean()
    assert found.expected == pytest.approx(expected)
    assert found.mean_image is not None
    assert np.allclose(found.mean_image.numpy(), chart.images.tensor().numpy()[inside].mean(axis=0), atol=1e-6)


def test_with_every_sign_any_all_images_are_members(atlas: Atlas) -> None:
    found = sectors.inhabitants(atlas, atlas.chart("painter"), ["any"] * 4, 1.5)
    assert len(found.members) == 120
    assert "100.0 %" in sectors.occupancy(found)


def test_an_empty_sector_says_so(atlas: Atlas) -> None:
    found = sectors.inhabitants(atlas, atlas.chart("painter"), ["+"] * 4, 1.5)
    assert len(found.members) == 0
    assert "No image lies in this sector" in sectors.pictures(found, atlas.chart("painter"))


@pytest.mark.parametrize(
    ("signs", "threshold"), [(["+"], 0.0), (["up"] * 4, 0.0), (["+"] * 4, -1.0), (["+"] * 4, float("nan"))]
)
def test_nonsense_sectors_are_refused(atlas: Atlas, signs: list[str], threshold: float) -> None:
    with pytest.raises(SettingError):
        sectors.inhabitants(atlas, atlas.chart("painter"), signs, threshold)


# Room 5


def test_the_same_seed_goes_through_every_sampler(atlas: Atlas) -> None:
    chart = atlas.chart("painter")
    drawn = sampling.draws(atlas, chart, 4)
    assert [each.name for each in drawn] == ["prior", "moments", "gaussian", "mixture", "second-stage"]
    again = sampling.draws(atlas, chart, 4)
    other = sampling.draws(atlas, chart, 5)
    for first, second, third in zip(drawn, again, other, strict=True):
        assert first.images is not None
        assert second.images is not None
        assert third.images is not None
        assert torch.equal(first.images, second.images)
        assert not torch.equal(first.images, third.images)
    assert len(_pictures(sampling.pictures(drawn, 4))) == 5 * sampling.SHOWN


def test_a_seed_out_of_range_is_refused(atlas: Atlas) -> None:
    for seed in (-1, 2**31):
        with pytest.raises(SettingError, match="A seed is"):
            sampling.draws(atlas, atlas.chart("painter"), seed)


# Room 6


def test_the_sheet_is_the_diagnosis_by_gain(atlas: Atlas) -> None:
    found = health(atlas, atlas.chart("painter"))
    lines = health_room.sheet(found)
    gains = [line[list(health_room.COLUMNS).index("gain")] for line in lines]
    assert gains == sorted(gains, reverse=True)
    assert {line[0] for line in lines[-2:]} == {4, 5}
    assert [line[1] for line in lines] == ["active"] * 4 + ["collapsed"] * 2
    names, values, verdicts = health_room.bars(found, "variance of means")
    assert names == [str(line[0]) for line in lines]
    assert values[-2:] == [0.0, 0.0]
    assert verdicts[-1] == "collapsed"
    html = health_room.chart(found, "variance of means")
    assert [
        f"variable {name}, {verdict}: variance of means" in html for name, verdict in zip(names, verdicts, strict=True)
    ] == [True] * 6
    shares = [float(share) for share in re.findall(r"<i style=\"--la-share:([0-9.]+)", html)]
    assert shares == pytest.approx([value * shares[0] / values[0] for value in values], abs=1e-3)
    assert max(shares) > 0.5
    assert palette.KL in health_room.chart(found, "KL, nats")
    assert "<hr" in health_room.chart(found, "sum of the two")
    with pytest.raises(SettingError, match="The chart shows"):
        health_room.bars(found, "beauty")


def test_a_traversal_runs_one_variable_and_has_words_for_each_picture(atlas: Atlas) -> None:
    html = health_room.traversal(atlas, atlas.chart("painter"), 0)
    first, *_, last = _pictures(html)
    assert (first != last).sum() == 1
    assert 'alt="variable 0 at -2.25"' in html


def test_a_model_without_encoder_has_no_sheet(painter: SimpleNamespace) -> None:
    silent = painter.chart()
    silent.model.lacks = ("encode",)
    with pytest.raises(CapabilityError, match="no encoder"):
        health(Atlas(charts={"painter": silent}), silent)


# Pictures and words


def test_an_error_map_is_drawn_as_reports_draw_it() -> None:
    errors = torch.tensor([[[0.0, 0.05, 0.1, 0.9]]])
    pixels = np.asarray(Image.open(io.BytesIO(heat_png(errors, 0.1))))
    report = np.asarray(Image.open(io.BytesIO(grid(heat(errors[None], 0.1), columns=1, enlarge=1))).convert("RGB"))
    assert pixels.tolist() == report.tolist()
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert pixels[0, 2:].tolist() == [[255, 255, 255]] * 2


def test_headings_follow_the_pages_own_without_a_gap(atlas: Atlas) -> None:
    html = relocation.pictures(
        relocation.relocation(atlas, atlas.chart("painter"), atlas.chart("turned")),
        atlas.chart("painter"),
        atlas.chart("turned"),
    )
    html += sampling.pictures(sampling.draws(atlas, atlas.chart("painter"), 0), 0)
    assert set(re.findall(r"<(h\d)", html)) == {"h2"}  # below the one h1


def test_what_visitors_and_models_are_called_is_escaped() -> None:
    evil = "<script>alert(1)</script>\"'"
    html = note(evil) + rows([Row(title=evil, images=torch.zeros(1, 1, 8, 8), words=[evil], captions=[evil], remark=evil)])
    assert "<script" not in html
    assert "\"'" not in html.replace("=\"'", "")
    assert note("") == ""


def test_a_chart_is_as_high_as_its_numbers_and_draws_none_below_0_or_that_is_none() -> None:
    values = [3.0, 0.0, -1.0, float("nan"), 6.0]
    html = chart(
        [Column(name=str(place), value=value, colour="#000000", words='<"x">') for place, value in enumerate(values)],
        axis="things",
        unit="size, m",
        words="Things",
        legend=[("#000000", "a <sort>")],
        mark=4.5,
    )
    assert re.findall(r"<i style=\"--la-share:([0-9.]+)", html) == ["0.5000", "0.0000", "0.0000", "0.0000", "1.0000"]
    assert re.findall(r"<hr style=\"--la-share:([0-9.]+)", html) == ["0.7500"]
    assert re.findall(r"<li>([^<]+)</li>", html) == ["6", "3", "0"]
    assert "<sort>" not in html
    assert '<"x">' not in html
    empty = chart([], axis="", unit="", words="", legend=[])
    assert "nan" not in empty
    assert "<li title" not in empty
