"""Support Sets of a planted world: the right variables, the right sectors, and a map that few points fix."""

import inspect
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from torch import Tensor

from latlas.base.errors import CapabilityError, CodeShapeError, IllPosedError, SettingError, UnknownNameError
from latlas.data.images import ImageSet
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding
from latlas.encodings.mapped import map_rows
from latlas.maps.fit import fit_map
from latlas.measurements.spread import ratio_interval
from latlas.models.adapters.callables import CallableModel
from latlas.studies import support as spread_of_support
from latlas.studies.support import OTHERS, SmallFits, build_support_set, check_settings, compare_small_fits, compare_spread
from latlas.supports.sectors import Sectors, largest_threshold
from latlas.supports.selectors import select

SHAPE = (1, 4, 6)
# The factors in another order: the strongest is variable 2, then 0, then 1.
REORDERED = torch.eye(3, dtype=torch.float64)[:, [1, 2, 0]]
STRONGEST_FIRST = (2, 0, 1)


def reordered(world: Any) -> CallableModel:
    model: CallableModel = world.autoencoder(REORDERED)
    return model


def codes(world: Any) -> Tensor:
    return (world.factors @ REORDERED).float()


# Building


@pytest.mark.parametrize("variables", [1, 2, 3])
def test_sectors_are_of_the_variables_that_draw_the_most(variables: int, world: Any) -> None:
    support = build_support_set(reordered(world), world.images(), variables=variables)
    assert support.sectors.variables == STRONGEST_FIRST[:variables]
    assert support.sectors.count == 2**variables


def test_members_are_where_they_are_said_to_be(world: Any) -> None:
    support = build_support_set(reordered(world), world.images(), variables=3, seed=4)
    assert len(support) == support.inhabited == 8  # every sector of three factors is inhabited
    assert support.sector.tolist() == list(range(8))
    rows = support.indices
    assert support.images.storage.equal(world.images().storage[rows])
    torch.testing.assert_close(support.codes, codes(world)[rows], rtol=1e-4, atol=1e-4)
    middle = world.factors.mean(dim=0)
    for member, sector in zip(world.factors[rows] @ REORDERED, support.sector.tolist(), strict=True):
        for bit, variable in enumerate(STRONGEST_FIRST):
            offset = float(member[variable] - (middle @ REORDERED)[variable])
            assert offset * support.sectors.directions(sector)[bit] > support.sectors.threshold - 1e-5
    assert (support.model, support.chosen_from, support.images.name) == ("planted", "world", "Support Set of world")


@pytest.mark.parametrize("centre", ["mean", "origin"])
def test_the_threshold_is_the_largest_about_its_centre(centre: str, world: Any) -> None:
    support = build_support_set(reordered(world), world.images(), variables=3, centre=centre)  # type: ignore[arg-type]
    middle = tuple(codes(world)[:, list(STRONGEST_FIRST)].double().mean(dim=0).tolist()) if centre == "mean" else ()
    assert support.sectors.centre == pytest.approx(middle, abs=1e-5)
    assert support.sectors.threshold == pytest.approx(largest_threshold(codes(world), STRONGEST_FIRST, middle), abs=1e-5)
    assert int(support.occupancy.min()) == 1  # some sector is down to its last image


def test_a_threshold_can_be_given(world: Any) -> None:
    support = build_support_set(reordered(world), world.images(), variables=2, threshold=0.25, centre="origin")
    sectors = Sectors(variables=(2, 0), threshold=0.25)
    assert support.sectors == sectors
    assert support.occupancy.tolist() == sectors.occupancy(codes(world)).tolist()


def test_few_sectors_are_topped_up_to_the_size_of_the_latent_space(world: Any) -> None:
    """Two sectors, three variables: the third member comes from the more crowded sector."""
    support = build_support_set(reordered(world), world.images(), variables=1, threshold=0.5, centre="origin")
    assert len(support) == 3
    assert support.sector.tolist() == [0, 1, int(support.occupancy.argmax())]
    assert len(set(support.indices.tolist())) == 3


def test_an_order_can_be_given_and_saves_the_gains(world: Any) -> None:
    tasks: list[str] = []
    support = build_support_set(
        reordered(world),
        world.images(),
        variables=2,
        order=[1, 2, 0],
        progress=lambda task, done, total, note="": tasks.append(task),
    )
    assert support.sectors.variables == (1, 2)
    assert set(tasks) == {"encoding world"}


def test_the_seed_decides_the_choice(world: Any) -> None:
    chosen = [build_support_set(reordered(world), world.images(), variables=2, seed=seed).indices for seed in (0, 0, 1)]
    assert chosen[0].equal(chosen[1])
    assert not chosen[0].equal(chosen[2])


def test_names_and_labels_come_along(world: Any) -> None:
    plain = world.images()
    named = ImageSet("named", plain.storage, labels=torch.arange(500), names=tuple(f"{i}.png" for i in range(500)))
    support = build_support_set(reordered(world), named, variables=2)
    rows = support.indices.tolist()
    assert support.images.labels is not None
    assert support.images.labels.tolist() == rows
    assert list(support.images.names) == [f"{row}.png" for row in rows]


def test_the_set_knows_what_it_was_made_from(world: Any) -> None:
    support = build_support_set(reordered(world), world.images(), variables=2, threshold=0.25, seed=9)
    assert support.provenance.seed == 9
    assert support.provenance.made_from == {"model": "weights of planted", "images": world.images().content_hash}
    assert support.provenance.settings == {"variables": 2, "threshold": 0.25, "centre": "mean"}


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"variables": 4}, SettingError, "Asked for 4 variables of a latent space of 3"),
        ({"variables": 0}, SettingError, "Asked for 0 variables of a latent space of 3"),
        (
            {"variables": 3, "order": [1, 0]},
            SettingError,
            r"An order must name 3 of the variables 0 to 2 at least, got \[1, 0\]",
        ),
        ({"variables": 2, "order": [1, 1]}, SettingError, "different variables"),
        ({"variables": 2, "order": [1, 7]}, SettingError, "must name 2 of the variables 0 to 2 at least"),
        ({"variables": 2, "threshold": 50.0}, IllPosedError, "No image lies beyond the threshold 50 in all 2 variables"),
        ({"variables": 2, "threshold": -1.0}, SettingError, "threshold must be at least 0"),
        # Unwrapped below: in tests the type checker would answer first.
        ({"variables": 2, "threshold": "largst"}, UnknownNameError, "Unknown threshold 'largst'.*Or give a number"),
        ({"variables": 2, "centre": "median"}, UnknownNameError, "Unknown centre 'median'"),
        ({"variables": 2, "size": 1}, SettingError, "Asked for 1 of 500 images; ask for 2 to that many"),
    ],
)
def test_settings_that_make_no_set_are_refused(
    settings: dict[str, Any], error: type[Exception], words: str, world: Any
) -> None:
    with pytest.raises(error, match=words):
        inspect.unwrap(build_support_set)(reordered(world), world.images(), **settings)


def test_models_that_have_no_sectors_are_refused(world: Any) -> None:
    spatial = CallableModel(
        name="spatial",
        image_shape=SHAPE,
        latent_shape=(2, 2, 6),
        encode_with=lambda images: images.reshape(-1, 2, 2, 6),
        decode_with=lambda z: z.reshape(-1, *SHAPE),
    )
    with pytest.raises(CodeShapeError, match=r"spatial latent space \(2, 2, 6\); sectors need a vector one"):
        build_support_set(spatial, world.images(), variables=1)
    half = CallableModel(name="half", image_shape=SHAPE, latent_shape=(3,), decode_with=reordered(world).decode_with)
    with pytest.raises(CapabilityError, match="A Support Set needs an encoder, which half lacks"):
        build_support_set(half, world.images(), variables=1)


def test_constant_codes_have_no_sectors(world: Any) -> None:
    blind = CallableModel(
        name="blind",
        image_shape=SHAPE,
        latent_shape=(3,),
        encode_with=lambda images: torch.full((len(images), 3), 0.1),
        decode_with=lambda z: torch.zeros(len(z), *SHAPE),
    )
    with pytest.raises(IllPosedError, match="no active variable"):
        build_support_set(blind, world.images(), variables=2)


# Other ways to choose, filters, and codes that are there already


def hats(world: Any) -> ImageSet:
    plain = world.images()
    return ImageSet("world", plain.storage, factors={"hat": tuple("tall" if i % 5 == 0 else "none" for i in range(500))})


def test_the_threshold_may_be_in_units_of_each_variables_spread(world: Any) -> None:
    support = build_support_set(reordered(world), world.images(), variables=3, threshold=0.3, units="spread")
    spread = codes(world).double()[:, list(STRONGEST_FIRST)].std(dim=0, correction=0)
    assert support.sectors.scale == pytest.approx(tuple(spread.tolist()), rel=1e-4)
    middle = codes(world).double().mean(dim=0)[list(STRONGEST_FIRST)]
    offsets = (codes(world).double()[:, list(STRONGEST_FIRST)] - middle).abs() / spread
    assert int(support.occupancy.sum()) == int((offsets > 0.3).all(dim=1).sum())


def test_the_largest_threshold_in_units_of_spread_keeps_every_sector(world: Any) -> None:
    support = build_support_set(reordered(world), world.images(), variables=3, units="spread")
    assert int(support.occupancy.min()) == 1
    assert support.inhabited == 8


def test_extreme_members_lie_farther_apart_and_central_ones_closer(world: Any) -> None:
    ratios = {}
    for choose in ("central", "random", "extreme"):
        support = build_support_set(reordered(world), world.images(), variables=3, threshold=0.0, choose=choose)
        ratios[choose] = compare_spread(support, world.images()).ratio
        assert support.provenance.settings.get("choose", "random") == choose
    assert ratios["central"] < ratios["random"] < ratios["extreme"]


@pytest.mark.parametrize("selector", OTHERS)
def test_other_selectors_choose_as_many_by_the_whole_code(selector: str, world: Any) -> None:
    support = build_support_set(reordered(world), world.images(), variables=3, selector=selector, seed=2)
    assert len(set(support.indices.tolist())) == len(support) == 8
    assert support.indices.equal(select(selector, encode(reordered(world), world.images()).mean, 8, seed=2))
    assert support.sector.equal(support.sectors.of(support.codes))
    assert support.provenance.settings["selector"] == selector
    assert len(build_support_set(reordered(world), world.images(), variables=3, selector=selector, size=5)) == 5


def test_a_size_tops_the_sectors_up(world: Any) -> None:
    assert len(build_support_set(reordered(world), world.images(), variables=2, size=20, threshold=0.1)) == 20
    assert len(build_support_set(reordered(world), world.images(), variables=3, size=2)) == 8, "one for each sector at least"


def test_images_with_an_attribute_are_left_out_as_if_they_had_never_been(world: Any) -> None:
    images = hats(world)
    support = build_support_set(reordered(world), images, variables=2, without=("hat",), seed=3)
    bare = torch.tensor([i for i in range(500) if i % 5])
    alone = build_support_set(reordered(world), images.take(bare), variables=2, seed=3)
    assert support.indices.equal(bare[alone.indices])
    assert support.images.storage.equal(alone.images.storage)
    assert support.images.factors == {"hat": ("none",) * len(support)}
    assert support.sectors.threshold == pytest.approx(alone.sectors.threshold, abs=1e-6)
    assert support.occupancy.equal(alone.occupancy)
    assert support.provenance.settings["without"] == ["hat"]
    excluded = build_support_set(
        reordered(world), world.images(), variables=2, exclude=[f"#{i}" for i in range(0, 500, 5)], seed=3
    )
    assert excluded.indices.equal(support.indices)


def test_codes_that_are_there_are_not_made_again(world: Any, tmp_path: Path) -> None:
    model, images = reordered(world), hats(world)
    encode(model, images, out=tmp_path / "codes")
    stored = Encoding.from_pretrained(tmp_path / "codes")
    tasks: list[str] = []
    given = build_support_set(
        model,
        images,
        variables=3,
        order=[2, 0, 1],
        without=("hat",),
        encoding=stored,
        progress=lambda task, done, total, note="": tasks.append(task),
    )
    assert tasks == []
    fresh = build_support_set(model, images, variables=3, order=[2, 0, 1], without=("hat",))
    assert given.to_json() == fresh.to_json()
    assert given.codes.equal(fresh.codes)


def test_images_that_stay_on_disk_give_the_same(world: Any, tmp_path: Path) -> None:
    images = world.images()
    np.save(tmp_path / "images.npy", images.storage.numpy())
    mapped = ImageSet("world", map_rows(tmp_path / "images.npy"))
    there = build_support_set(reordered(world), mapped, variables=2)
    assert there.to_json() == build_support_set(reordered(world), images, variables=2).to_json()
    assert there.images.content_hash == images.take(there.indices).content_hash


def test_codes_of_something_else_are_refused(world: Any, basis: Tensor) -> None:
    images = world.images()
    other_images = encode(reordered(world), images.slice(0, 400))
    with pytest.raises(IllPosedError, match=r"of other images \(world\[0:400\], 400 codes\) than world \(500 images\)"):
        build_support_set(reordered(world), images, variables=2, encoding=other_images)
    other_model = encode(world.autoencoder(basis, name="another"), images)
    with pytest.raises(IllPosedError, match="made by a model of other weights than planted"):
        build_support_set(reordered(world), images, variables=2, encoding=other_model)
    wide = Encoding(**{**vars(other_model), "mean": torch.zeros(500, 7)})
    with pytest.raises(CodeShapeError, match=r"codes of shape \(7,\); planted has \(3,\)"):
        build_support_set(reordered(world), images, variables=2, encoding=wide)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"units": "sigma"}, UnknownNameError, "Unknown unit of a threshold 'sigma'"),
        ({"choose": "extrem"}, UnknownNameError, "Did you mean 'extreme'"),
        ({"selector": "kmeans"}, UnknownNameError, "Did you mean 'k-means'"),
        ({"selector": "support-set"}, UnknownNameError, "Known: .*sectors"),
        ({"selector": "random", "choose": "central"}, SettingError, "random chooses by the whole code"),
        ({"size": 501}, SettingError, "Asked for 501 of 500 images"),
        ({"size": 0}, SettingError, "Asked for 0 of 500 images"),
        ({"without": ("hats",)}, UnknownNameError, "Did you mean 'hat'"),
        ({"exclude": ("#500",)}, UnknownNameError, "holds no image '#500'"),
        ({"with_": ("hat",), "without": ("hat",)}, IllPosedError, "No image of world is left"),
        (
            {"with_": ("hat",), "exclude": [f"#{i}" for i in range(10, 500, 5)]},
            SettingError,
            "more than the 2 images to choose",
        ),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(
    settings: dict[str, Any], error: type[Exception], words: str, world: Any
) -> None:
    with pytest.raises(error, match=words):
        inspect.unwrap(build_support_set)(reordered(world), hats(world), variables=2, **settings)


def test_more_sectors_than_images_are_refused_before_any_work(world: Any) -> None:
    few = world.images().slice(0, 5)
    with pytest.raises(
        SettingError, match=r"3 variables have 8 sectors, more than the 5 images .* ask for 2 variables at most"
    ):
        build_support_set(reordered(world), few, variables=3)
    assert len(build_support_set(reordered(world), few, variables=3, selector="farthest", size=4)) == 4


# Spread


def test_spread_compares_the_set_with_random_images_of_all(world: Any) -> None:
    support = build_support_set(reordered(world), world.images(), variables=3)
    spread = compare_spread(support, world.images())
    members = support.images.tensor().double().flatten(1).numpy()
    everything = world.images().tensor().double().flatten(1).numpy()
    assert spread.support.mean == pytest.approx(pdist(members, "sqeuclidean").mean() / 24, rel=1e-9)
    assert spread.random.mean == pytest.approx(pdist(everything, "sqeuclidean").mean() / 24, rel=1e-9)  # 500 < 5,000
    assert spread.ratio == pytest.approx(spread.support.mean / spread.random.mean)
    assert spread.interval == ratio_interval(spread.support, spread.random)
    assert spread.interval[0] < spread.ratio < spread.interval[1]
    assert spread.ratio > 1.1  # beyond the threshold in every direction is farther apart than anywhere
    json.dumps(spread.to_json(), allow_nan=False)


def test_images_that_are_all_alike_have_no_ratio(world: Any) -> None:
    support = build_support_set(reordered(world), world.images(), variables=2)
    grey = ImageSet("grey", torch.full((5, *SHAPE), 0.5))
    spread = compare_spread(support, grey)
    assert math.isnan(spread.ratio)
    assert spread.to_json()["ratio"] is None
    assert spread.to_json()["interval"] == [None, None]


# Maps from few points


def test_where_a_map_is_exact_few_points_fix_it(world: Any, basis: Tensor) -> None:
    images, test = world.images().slice(0, 400), world.images().slice(400, 500)
    source = reordered(world)
    support = build_support_set(source, images, variables=3)
    fits = compare_small_fits(source, world.autoencoder(basis, 0.3), images, support, test, draws=3)
    residual = float(np.square(world.residual[400:].numpy()).mean())
    for error in (fits.support_M, fits.full_M, *fits.random_M):
        assert error == pytest.approx(residual, rel=1e-3)
    assert (fits.points, len(fits.random_M)) == (8, 3)


def test_random_draws_are_decided_by_the_seed(world: Any, basis: Tensor) -> None:
    """On noisy codes, so that it matters which points were drawn."""
    images, test = world.images().slice(0, 400), world.images().slice(400, 500)
    exact = world.autoencoder(basis)

    def noisy(batch: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(round(float(batch.double().sum())))
        clean = exact.encode(batch).mean
        return clean + torch.randn(clean.shape, generator=generator)

    target = CallableModel(name="t", image_shape=SHAPE, latent_shape=(3,), encode_with=noisy, decode_with=exact.decode)
    support = build_support_set(reordered(world), images, variables=2)
    fits = [compare_small_fits(reordered(world), target, images, support, test, draws=4, seed=s) for s in (0, 0, 1)]
    assert fits[0] == fits[1]
    assert fits[0].random_M != fits[2].random_M
    assert len(set(fits[0].random_M)) == 4
    assert (fits[0].support_M, fits[0].full_M) == (fits[2].support_M, fits[2].full_M)
    assert fits[0].full_M < min(fits[0].random_M)
    # The map from the support points alone, by hand.
    chosen = fit_map(codes(world)[support.indices], encode(target, images).mean[support.indices], ridge="gcv")
    difference = exact.decode(chosen.apply(codes(world)[400:])) - test.tensor()
    assert fits[0].support_M == pytest.approx(float(np.square(difference.double().numpy()).mean()), rel=1e-3)
    assert fits[0].support_M != pytest.approx(fits[0].full_M, rel=1e-2)


def test_the_record_of_small_fits_has_its_ratios() -> None:
    fits = SmallFits(points=8, support_M=0.06, random_M=[0.05, 0.07], full_M=0.02)
    record = fits.to_json()
    assert record["M_over_full_M"] == pytest.approx(3.0)
    assert record["random_M_over_full_M"] == pytest.approx(3.0)
    assert record["random_M_deviation"] == pytest.approx(np.std([0.05, 0.07], ddof=1))
    assert SmallFits(points=8, support_M=0.06, random_M=[0.05], full_M=0.02).to_json()["random_M_deviation"] is None
    assert SmallFits(points=8, support_M=0.0, random_M=[0.0], full_M=0.0).to_json()["M_over_full_M"] is None


def test_settings_are_judged_by_model_and_number_of_images_alone(world: Any) -> None:
    check_settings(reordered(world), 8, variables=3, size=8)
    with pytest.raises(SettingError, match="more than the 7 images to choose from: ask for 2 variables at most"):
        check_settings(reordered(world), 7, variables=3)
    with pytest.raises(IllPosedError, match="from 2 images at least, got 1"):
        check_settings(reordered(world), 1, variables=1, selector="k-means")
    grid = CallableModel(
        name="grid", image_shape=SHAPE, latent_shape=(2, 2, 2), encode_with=lambda x: x, decode_with=lambda z: z
    )
    with pytest.raises(CodeShapeError, match="spatial latent space"):
        check_settings(grid, 500, variables=1)


def test_an_order_that_was_given_stands_in_the_provenance(world: Any) -> None:
    given = build_support_set(reordered(world), world.images(), variables=2, order=[1, 2, 0])
    assert given.provenance.settings["order"] == [1, 2, 0]
    assert "order" not in build_support_set(reordered(world), world.images(), variables=2).provenance.settings


def test_of_large_images_fewer_random_ones_are_drawn_for_the_spread(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    images, drawn = world.images(), []
    support = build_support_set(reordered(world), images, variables=2)
    measure = spread_of_support.pairwise_spread
    monkeypatch.setattr(spread_of_support, "pairwise_spread", lambda some: drawn.append(len(some)) or measure(some))
    for values in (2**28, 24 * 50, 24):
        monkeypatch.setattr(spread_of_support, "_SPREAD_PIXELS", values)
        compare_spread(support, images)
    assert drawn[1::2] == [500, 50, 2]
