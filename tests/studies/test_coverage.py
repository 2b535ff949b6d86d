"""Coverage: what was planted as missing is named, and a model that lacks nothing is not blamed."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from latlas.base.errors import CapabilityError, IllPosedError, ImageFormatError, SettingError
from latlas.data.images import ImageSet, to_pixels
from latlas.inversion.descent import Budget
from latlas.measurements.conformal import adjusted_p_values, conformal_p_values
from latlas.measurements.empirical_null import fit_null
from latlas.models.adapters.callables import CallableModel
from latlas.studies.coverage import _evened, _unit, cover, cover_all, landmark_factors
from latlas.studies.coverage_record import Coverage, directions
from latlas.studies.missed_attributes import attribute_rows, carried, indicators
from latlas.studies.support import build_support_set
from latlas.supports.support_set import SupportSet

SHAPE, SIDE, SMOOTH = (1, 8, 8), 8, 5


def drawing() -> Tensor:
    """Rows: five waves over the whole image, and three patterns that a hat can have, over its upper third."""
    generator = torch.Generator().manual_seed(5)
    waves = 0.05 * torch.randn(SMOOTH, SIDE * SIDE, generator=generator, dtype=torch.float64)
    waves[0] *= 2
    hats = torch.zeros(3, SIDE, SIDE, dtype=torch.float64)
    hats[:, :3] = 0.25 * torch.randn(3, 3, SIDE, generator=generator, dtype=torch.float64).sign()
    return torch.cat([waves, hats.flatten(1)])


def people(n: int, *, hats: float, seed: int, name: str = "people") -> ImageSet:
    """Images of which a share wears a hat, with a residual that differs from image to image in strength."""
    generator = torch.Generator().manual_seed(seed)
    factors = torch.zeros(n, SMOOTH + 3, dtype=torch.float64)
    factors[:, :SMOOTH] = torch.randn(n, SMOOTH, generator=generator, dtype=torch.float64).clamp(-2, 2)
    wears = torch.rand(n, generator=generator) < hats
    kind = torch.randint(3, (n,), generator=generator)
    factors[torch.arange(n), SMOOTH + kind] = wears.double()
    strength = (0.5 * torch.randn(n, 1, generator=generator, dtype=torch.float64)).exp()
    residual = 0.03 * strength * torch.randn(n, SIDE * SIDE, generator=generator, dtype=torch.float64)
    pixels = (0.5 + factors @ drawing() + residual).clamp(0, 1).unflatten(1, SHAPE)
    tall = factors[:, 0] > 0
    return ImageSet(
        name,
        to_pixels(pixels.float()),
        factors={
            "hat": tuple(f"kind{int(k)}" if w else "none" for w, k in zip(wears, kind, strict=True)),
            "build": tuple("tall" if one else "short" for one in tall.tolist()),
        },
    )


def model(rows: int, *, name: str, blur: float = 1.0) -> CallableModel:
    """The exact linear autoencoder of the first rows of the drawing; blur draws everything a little fainter."""
    basis = drawing()[:rows]
    back = torch.linalg.pinv(basis)
    return CallableModel(
        name=name,
        image_shape=SHAPE,
        latent_shape=(rows,),
        encode_with=lambda images: ((images.flatten(1).double() - 0.5) @ back).float(),
        decode_with=lambda codes: (0.5 + blur * codes.double() @ basis).clamp(0, 1).float().unflatten(1, SHAPE),
        sample_with=lambda n, generator: 0.5 * torch.randn(n, rows, generator=generator),
        fingerprint=f"weights of {name}",
    )


HATLESS, WHOLE, REFERENCE = model(SMOOTH, name="hatless"), model(8, name="whole", blur=0.97), model(8, name="reference")


@pytest.fixture(scope="module")
def support() -> SupportSet:
    return build_support_set(REFERENCE, people(1200, hats=0.3, seed=1), variables=5, order=list(range(8)))


@pytest.fixture(scope="module")
def control() -> ImageSet:
    return people(400, hats=0.3, seed=2, name="others")


@pytest.fixture(scope="module")
def results(support: SupportSet, control: ImageSet) -> tuple[Coverage, ...]:
    return cover_all([HATLESS, WHOLE], support, control, reference=REFERENCE, samples=60)


def wearing(support: SupportSet) -> Tensor:
    assert support.images.factors is not None
    return torch.tensor([value != "none" for value in support.images.factors["hat"]])


def test_a_model_that_cannot_draw_hats_misses_the_landmarks_that_wear_them(
    results: tuple[Coverage, ...], support: SupportSet
) -> None:
    hatless, has = results[0], wearing(support)
    assert 5 <= int(has.sum()) < len(support) - 5
    assert float(hatless.missed[has].double().mean()) >= 0.8
    assert float(hatless.missed[~has].double().mean()) <= 0.1
    assert hatless.missed_attributes[0].name == "hat"
    assert hatless.missed_attributes[0].shares.low > 0.5
    assert "build=tall" not in {row.name for row in hatless.missed_attributes}


def test_a_model_that_draws_everything_is_not_blamed(results: tuple[Coverage, ...]) -> None:
    """It draws everything a little fainter than the reference: worse throughout, and no landmark stands out."""
    assert results[1].landmarks.errors.mean() > results[1].own_errors.mean()
    assert results[1].missed_share <= 0.1
    assert not results[1].missed_attributes


def test_the_contaminated_control_would_have_hidden_them(results: tuple[Coverage, ...]) -> None:
    hatless = results[0]
    assert hatless.null.apart == pytest.approx(0.3, abs=0.08)
    assert not bool((adjusted_p_values(hatless.control_p_values) <= 0.05).any())


def test_own_samples_reject_what_even_the_reference_cannot_draw(results: tuple[Coverage, ...]) -> None:
    """The residual is in no model: every landmark lies beyond the own samples, and that says nothing of hats."""
    for result in results:
        assert float(result.own_p_values.max()) == pytest.approx(1 / 61)


def test_a_control_that_is_represented_gives_the_conformal_test(support: SupportSet) -> None:
    known = people(400, hats=0.0, seed=3, name="bare heads")
    result = cover(HATLESS, support, known, reference=REFERENCE, represented=True, samples=20)
    assert result.p_values.equal(conformal_p_values(result.scores, result.control_scores))
    has = wearing(support)
    assert float(result.missed[has].double().mean()) >= 0.8
    assert float(result.missed[~has].double().mean()) <= 0.1


def test_represented_landmarks_are_called_missed_no_more_often_than_the_level() -> None:
    """Landmarks that are random images themselves are exchangeable with the control: under 20 draws, few are called."""
    called = []
    for seed in range(20):
        images = people(300, hats=0.0, seed=100 + seed)
        few = build_support_set(REFERENCE, images, variables=2, order=list(range(8)), threshold=0.0)
        result = cover(WHOLE, few, people(150, hats=0.0, seed=200 + seed), samples=20)
        called.append(float(result.missed.any()))
    assert np.mean(called) <= 0.2  # at 5 %, more than 4 of 20 has a chance of 0.3 %


def test_one_model_alone_is_judged_as_among_others(
    results: tuple[Coverage, ...], support: SupportSet, control: ImageSet
) -> None:
    alone = cover(HATLESS, support, control, reference=REFERENCE, samples=60)
    assert alone.to_json() == results[0].to_json()


def test_the_record_agrees_with_itself(results: tuple[Coverage, ...]) -> None:
    record = results[0].to_json()
    json.dumps(record, allow_nan=False)
    assert record["missed"] == sum(row["missed"] for row in record["per_landmark"]) == int(results[0].missed.sum())
    assert len(record["per_landmark"]) == record["landmarks"]
    assert sum(len(row["landmarks"]) for row in record["per_sector"]) == record["landmarks"]
    p_values = [row["p_value"] for row in record["per_landmark"]]
    assert p_values == sorted(p_values)
    assert record["missed_attributes"][0] == "hat"
    assert set(record["provenance"]["made_from"]) == {"model", "support", "control", "reference"}


def test_a_sector_has_the_smallest_p_value_of_its_landmarks_times_their_number(results: tuple[Coverage, ...]) -> None:
    result = results[0]
    for row in result.sectors:
        least = min(float(result.p_values[place]) for place in row.landmarks)
        assert row.p_value == pytest.approx(min(1.0, least * len(row.landmarks)))
        assert {int(result.support.sector[place]) for place in row.landmarks} == {row.sector}


def test_landmarks_of_no_sector_are_a_row_but_no_sector(results: tuple[Coverage, ...]) -> None:
    support = results[0].support
    has = wearing(support)
    without = replace(support, sector=torch.where(has, -1, support.sector))
    result = replace(results[0], support=without)
    record = result.to_json()
    rows = {row["sector"]: row for row in record["per_sector"]}
    assert list(rows[-1]["landmarks"]) == has.nonzero().flatten().tolist()
    assert record["sectors"] == len(rows) - 1 == len(set(support.sector[~has].tolist()))
    one = int(results[0].missed.nonzero()[0])
    lone = replace(support, sector=torch.where(torch.arange(len(support)) == one, -1, support.sector))
    alone = replace(results[0], support=lone).to_json()
    assert {row["sector"]: row["missed"] for row in alone["per_sector"]}[-1]
    assert alone["missed_sectors"] == results[0].summary()["missed_sectors"] - 1
    assert alone["sectors"] == results[0].summary()["sectors"] - 1
    assert record["missed_sectors"] == sum(row["missed"] for number, row in rows.items() if number >= 0)


def test_directions_are_the_signs_of_the_sectors_variables(support: SupportSet) -> None:
    for row in range(5):
        words = directions(support, int(support.sector[row])).split()
        centre = support.sectors.centre
        for word, variable, middle in zip(words, support.sectors.variables, centre, strict=True):
            assert word == f"{'+' if float(support.codes[row, variable]) > middle else '-'}{variable}"
    assert directions(support, -1) == "within the threshold"


def test_too_few_controls_are_said_to_call_nobody(support: SupportSet) -> None:
    result = cover(HATLESS, support, people(120, hats=0.3, seed=4), reference=REFERENCE, samples=20)
    least = result.fewest_callable
    assert least > 1
    assert result.null.smallest * len(support) / least <= 0.05 < result.null.smallest * len(support) / (least - 1)


@pytest.mark.parametrize("centre", [0.0, 0.5])
def test_scores_about_zero_are_not_driven_apart_into_two_parts(centre: float) -> None:
    """Differences from a reference lie about 0: of a control of one kind nothing is split off, and its like is not missed."""
    called = 0
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        control, fresh = (centre + torch.randn(n, generator=generator, dtype=torch.float64) for n in (2560, 128))
        unit = _unit(control)
        null = fit_null(_evened(control, unit))
        p_values = null.p_values(_evened(fresh, unit))
        assert not null.mixed, seed
        assert p_values.equal(conformal_p_values(fresh, control))
        called += int((adjusted_p_values(p_values) <= 0.05).sum())
    assert called <= 1


def test_the_unit_follows_what_is_larger_of_size_and_spread() -> None:
    errors = torch.tensor([1.0, 1.01, 1.02, 1.03, 1.04], dtype=torch.float64)
    assert _unit(errors) == pytest.approx(1.02)
    assert _unit(errors - 1.02) == pytest.approx(0.02)  # from quartile to quartile
    assert _unit(-errors) == pytest.approx(1.02)


def bursting(value: float) -> CallableModel:
    """The whole model, except that what has much of the first wave is drawn as no number."""
    return CallableModel(
        name=f"bursting into {value}",
        image_shape=SHAPE,
        latent_shape=(8,),
        encode_with=lambda images: WHOLE.encode(images).mean,
        decode_with=lambda codes: torch.where((codes[:, 0] > 1.4)[:, None, None, None], value, WHOLE.decode(codes)),
        sample_with=lambda n, generator: 0.2 * torch.randn(n, 8, generator=generator),
        fingerprint=f"weights that burst into {value}",
    )


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_an_image_that_gives_no_number_is_as_far_off_as_can_be_and_stops_nothing(
    value: float, support: SupportSet, control: ImageSet
) -> None:
    result = cover(bursting(value), support, control, budget=Budget(steps=5), samples=20)
    burst = result.landmarks.errors == 1
    assert 1 <= int(burst.sum()) < len(support) / 2
    assert bool((result.scores[burst] == 1).all())
    assert bool((result.scores[~burst] < 0.5).all())
    assert bool(result.control_scores.isfinite().all())


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_a_reference_that_gives_no_number_takes_nothing_off(value: float, support: SupportSet, control: ImageSet) -> None:
    result = cover(HATLESS, support, control, reference=bursting(value), budget=Budget(steps=5), samples=20)
    assert result.reference_landmarks is not None
    burst = result.reference_landmarks.errors == 1
    plain = result.landmarks.windows.amax(dim=1)
    assert burst.any()
    assert result.scores[burst].equal(plain[burst])
    assert bool((result.scores[~burst] < plain[~burst]).all())


# Attributes


def test_a_factor_gives_its_presence_its_values_and_bins_of_its_numbers() -> None:
    angles = [str(angle) for angle in range(-20, 20)]
    hats = ["none", "red", "none", "blue"] * 10
    colours = ["none", "#ff0000", "none", "#0000ff"] * 10  # of those who have a hat: the same images again
    found = indicators({"hat": hats, "hat_color": colours, "smiling": ["yes", "yes", "no", "no"] * 10, "angle": angles})
    assert [name for name in found if not name.startswith("angle")] == ["hat", "hat=blue", "hat=red", "smiling"]
    bins = torch.stack([has for name, (_, has) in found.items() if name.startswith("angle")])
    assert bins.sum(dim=0).eq(1).all()  # each image in exactly one
    assert bins.sum(dim=1).tolist() == [10, 10, 10, 10]


def test_values_that_are_tied_or_close_lose_no_images_to_bins_of_the_same_name() -> None:
    close = [f"{1000 + place / 100:.2f}" for place in range(40)]
    bins = indicators({"at": close})
    assert len(bins) == 4
    assert torch.stack([has for _, has in bins.values()]).sum(dim=0).eq(1).all()
    closest = [repr(1000 + place / 1e9) for place in range(40)]  # alike even to six digits
    assert [int(has.sum()) for _, has in indicators({"at": closest}).values()] == [10, 10, 10, 10]
    tied = ["0"] * 25 + [str(place) for place in range(1, 16)]
    bins = indicators({"at": tied})
    assert all(has.any() for _, has in bins.values())
    assert torch.stack([has for _, has in bins.values()]).sum(dim=0).eq(1).all()
    assert all(has.any() for _, has in indicators({"at": ["0", "0", "1", "1", "1", "2", "3", "4", "5", "6"]}).values())


def test_a_planted_attribute_comes_first_and_chance_is_not_named(generator: torch.Generator) -> None:
    hat = torch.rand(120, generator=generator) < 0.25
    missed = hat & (torch.rand(120, generator=generator) < 0.9)
    mouths = torch.randint(20, (120,), generator=generator).tolist()
    rows = attribute_rows(missed, {"mouth": [f"m{m}" for m in mouths], "hat": ["red" if h else "none" for h in hat.tolist()]})
    assert rows[0].factor == "hat"
    assert rows[0].missed(0.05)
    assert all(row.factor == "hat" for row in rows if row.missed(0.05))
    assert all(row.having >= 3 and row.lacking >= 3 for row in rows)
    assert attribute_rows(missed, {"mouth": ["a"] * 120}) == ()


def test_a_variable_goes_with_the_attribute_it_was_made_of(generator: torch.Generator) -> None:
    codes = torch.randn(80, 3, generator=generator)
    factors = {"build": ["tall" if v > 0 else "short" for v in codes[:, 2].tolist()], "hat": ["red", "none"] * 40}
    found = {row.variable: row for row in carried(codes, (0, 2), factors)}
    assert found[2].name in ("build=short", "build=tall")
    assert abs(found[2].correlation) > 0.7
    assert found[2].p_value < 1e-6
    assert found[0].p_value > 0.01


def test_factors_are_taken_from_the_images_that_landmarks_were_chosen_from(support: SupportSet) -> None:
    images = people(1200, hats=0.3, seed=1)
    assert landmark_factors(support, images) == support.images.factors
    with pytest.raises(SettingError, match="was not chosen from people: its images differ"):
        landmark_factors(support, people(1200, hats=0.3, seed=9))
    with pytest.raises(SettingError, match="its images differ"):
        landmark_factors(support, images.slice(0, 10))
    larger = ImageSet("larger", torch.zeros(1200, 1, 16, 16, dtype=torch.uint8), factors=images.factors)
    with pytest.raises(SettingError, match=r"are images of 1x8x8, those of larger are of 1x16x16. .*\(size=8\)"):
        landmark_factors(support, larger)
    with pytest.raises(SettingError, match="no attributes to look for"):
        landmark_factors(support, ImageSet("bare", images.storage))


# What is refused


def test_what_makes_no_test_is_refused(support: SupportSet, control: ImageSet) -> None:
    def ask(given: CallableModel = HATLESS, images: ImageSet = control, **options: Any) -> Coverage:
        return cover(given, support, images, **options)

    with pytest.raises(SettingError, match="level must lie between 0 and 1, got 5"):
        ask(level=5.0)
    with pytest.raises(SettingError, match="reference is its own reference"):
        ask(REFERENCE, reference=REFERENCE)
    with pytest.raises(SettingError, match="Factor 'hat' has 1 values for"):
        ask(factors={"hat": ["none"]})
    with pytest.raises(SettingError, match="at least 1 own sample"):
        ask(samples=0)
    with pytest.raises(IllPosedError, match="at least 100 images, got 50"):
        ask(images=control.slice(0, 50))
    with pytest.raises(IllPosedError, match="needs at least 19 images, got 10"):
        ask(images=control.slice(0, 10), represented=True)
    with pytest.raises(ImageFormatError, match="takes images of 1x8x8"):
        ask(images=ImageSet("wide", torch.zeros(150, 1, 8, 9)))
    blind = CallableModel(
        name="blind", image_shape=SHAPE, latent_shape=(3,), encode_with=lambda images: images.flatten(1)[:, :3]
    )
    with pytest.raises(CapabilityError, match="Coverage needs"):
        ask(blind)
    with pytest.raises(SettingError, match="at least 1 model"):
        cover_all([], support, control)
    with pytest.raises(SettingError, match="belongs to one model"):
        cover_all([HATLESS, WHOLE], support, control, recoder=REFERENCE)
