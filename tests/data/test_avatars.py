"""Avatars: the same picture for the same number, whoever draws it, and a table that says what is in it."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from latlas.base.errors import MissingExtraError, OutputExistsError, SettingError, UnknownNameError
from latlas.data import avatar_drawing
from latlas.data.avatar_drawing import choose, draw
from latlas.data.avatar_styles import ABSENT, AvatarSettings, read_style
from latlas.data.avatars import avatar_settings, load_avatars
from latlas.data.images import ImageSet
from latlas.data.loading import load_images
from latlas.data.tables import read_table

STYLES = ("pixel-art", "open-peeps")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own for each test."""
    monkeypatch.setenv("LATLAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def avatars(part: range = range(64), **settings: Any) -> ImageSet:
    return load_avatars(AvatarSettings(**settings), part=part, workers=1)


def factors(images: ImageSet) -> dict[str, tuple[str, ...]]:
    assert images.factors is not None
    return dict(images.factors)


def folders(cache: Path) -> list[Path]:
    return sorted((cache / "avatars").iterdir())


# The same pictures, whoever draws


@pytest.mark.parametrize("style", STYLES)
def test_the_number_of_processes_changes_nothing(style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avatar_drawing, "_CHUNK", 10)
    settings = AvatarSettings(style=style)
    alone, rows_alone = draw(settings, range(25), workers=1)
    shared, rows_shared = draw(settings, range(25), workers=2)
    np.testing.assert_array_equal(shared, alone)
    assert rows_shared == rows_alone


def test_an_image_depends_on_its_number_and_not_on_what_is_drawn_beside_it() -> None:
    settings = AvatarSettings(seed=3)
    whole, rows = draw(settings, range(30), workers=1)
    part, part_rows = draw(settings, range(7, 11), workers=1)
    np.testing.assert_array_equal(part, whole[7:11])
    assert part_rows == rows[7:11]


def test_a_longer_set_begins_with_the_shorter_one() -> None:
    short, long = avatars(range(10), count=10), avatars(range(20), count=20)
    assert long.storage[:10].equal(short.storage)


def test_avatars_are_distinct_and_the_splits_share_none() -> None:
    """Of pixel-art, which has hundreds of millions of combinations; open-peeps repeats itself within thousands."""
    drawn = [avatars(range(200), split=split).storage for split in ("train", "test")]
    assert len({image.numpy().tobytes() for storage in drawn for image in storage}) == 400


def test_another_seed_gives_other_avatars() -> None:
    first, second = avatars(range(20), seed=0), avatars(range(20), seed=1)
    assert not any(a.equal(b) for a, b in zip(first.storage, second.storage, strict=True))


# What an image is


@pytest.mark.parametrize(("size", "style"), [(64, "pixel-art"), (64, "open-peeps"), (48, "pixel-art"), (100, "open-peeps")])
def test_avatars_are_colour_bytes_of_the_size_asked_for(size: int, style: str) -> None:
    images = avatars(range(3), size=size, style=style)
    assert images.image_shape == (3, size, size)
    assert images.storage.dtype == torch.uint8


@pytest.mark.parametrize("style", STYLES)
def test_what_is_transparent_shows_the_background_and_nothing_else_changes_with_it(style: str) -> None:
    white, green = avatars(range(12), style=style), avatars(range(12), style=style, background="#00ff00")
    corner = torch.tensor([0, 255, 0], dtype=torch.uint8)
    assert green.storage[:, :, 0, 0].eq(corner).all()
    assert white.storage[:, :, 0, 0].eq(255).all()
    differ = white.storage.ne(green.storage).any(dim=1)
    # The composite is linear in the background: where it shows through at all, green stays as it was (255 in both).
    assert white.storage[:, 1][differ].int().sub(green.storage[:, 1][differ].int()).abs().max() <= 1
    assert 0.1 < float(differ.float().mean()) < 0.9


def test_pixels_are_drawn_sharp_in_whole_cells() -> None:
    """At 64 pixels each cell of the 16 x 16 pixel art is 4 x 4 pixels of one colour."""
    images = avatars(range(16)).storage
    cells = images.reshape(16, 3, 16, 4, 16, 4)
    assert cells.eq(cells[:, :, :, :1, :, :1]).all()


# Factors


@pytest.mark.parametrize("style", STYLES)
def test_every_factor_has_a_value_an_image_from_the_list_of_its_values(style: str) -> None:
    known = read_style(style).factors
    images = avatars(style=style)
    assert list(factors(images)) == list(known)
    for name, values in factors(images).items():
        assert len(values) == 64
        assert set(values) <= {*known[name].values, ABSENT}


@pytest.mark.parametrize(
    ("style", "pinned"),
    [
        ("pixel-art", {"hat": "variant03", "hat_color": "#2663a3", "skin_color": "#8d5524", "glasses": "none"}),
        ("open-peeps", {"head": "hatBeanie", "mask": "none", "clothing_color": "#e279c7"}),
    ],
)
def test_pinned_factors_have_one_value_and_the_others_are_as_they_were(style: str, pinned: dict[str, str]) -> None:
    free, held = factors(avatars(style=style)), factors(avatars(style=style, pinned=pinned))
    for name, values in held.items():
        if name in pinned:
            assert set(values) == {pinned[name]}
        elif read_style(style).factors[name].kind == "part":
            assert values == free[name]


@pytest.mark.parametrize("style", STYLES)
def test_the_recorded_factors_are_all_that_the_picture_depends_on(style: str) -> None:
    """Pinning what the table says of an image draws that image again, whatever the seed."""
    images = avatars(range(12), style=style, probabilities=dict.fromkeys(("accessories",), 0.5))
    known = read_style(style).factors
    for index, image in enumerate(images.storage):
        row = {name: values[index] for name, values in factors(images).items()}
        pinned = {name: value for name, value in row.items() if known[name].kind == "part" or value != ABSENT}
        again = avatars(range(1), style=style, seed=99, split="test", pinned=pinned)
        assert again.storage[0].equal(image)
        assert {name: values[0] for name, values in factors(again).items()} == row


def test_a_set_whose_every_factor_is_pinned_shows_one_picture() -> None:
    pinned = {name: factor.values[0] for name, factor in read_style("pixel-art").factors.items()}
    images = avatars(range(5), pinned=pinned).storage
    assert images.eq(images[:1]).all()


def test_every_hat_changes_the_upper_part_of_the_picture_and_nothing_below() -> None:
    bare = avatars(range(10), pinned={"hat": "none"}).storage
    for hat in read_style("pixel-art").factors["hat"].values:
        covered = avatars(range(10), pinned={"hat": hat}).storage
        rows = covered.ne(bare).any(dim=1).any(dim=2)  # image, row
        assert rows[:, :32].any(dim=1).all(), hat
        assert not rows[:, 32:].any(), hat


@pytest.mark.parametrize(
    ("factor", "rows", "columns"),
    [("mouth", slice(32, 52), slice(16, 48)), ("eyes", slice(16, 40), slice(12, 52)), ("clothes", slice(44, 64), slice(0, 64))],
)
def test_a_part_changes_the_picture_only_where_it_lies(factor: str, rows: slice, columns: slice) -> None:
    one, other = (
        avatars(range(10), pinned={factor: value, "beard": "none", "glasses": "none"}).storage
        for value in read_style("pixel-art").factors[factor].values[:2]
    )
    differ = one.ne(other).any(dim=1)
    assert differ.any(dim=2).any(dim=1).all()
    differ[:, rows, columns] = False
    assert not differ.any()


@pytest.mark.parametrize("name", ["clothing_color", "skin_color", "hat_color"])
def test_the_colour_that_is_recorded_is_in_the_picture(name: str) -> None:
    images = avatars(range(20), probabilities={"hat": 1.0})
    for image, value in zip(images.storage, factors(images)[name], strict=True):
        wanted = torch.tensor(list(bytes.fromhex(value[1:])), dtype=torch.uint8)
        assert image.eq(wanted[:, None, None]).all(dim=0).any(), value


def test_a_colour_that_no_part_uses_is_absent_and_not_seen() -> None:
    images = avatars(pinned={"hat": "none"})
    assert set(factors(images)["hat_color"]) == {ABSENT}
    other = avatars(pinned={"hat": "none", "hat_color": "#cc6192"})
    assert set(factors(other)["hat_color"]) == {ABSENT}
    assert other.storage.equal(images.storage)


# Probabilities


def frequency(settings: AvatarSettings, name: str, value: str | None, n: int) -> float:
    chosen = [row[name] for row in choose(settings, range(n))]
    return sum(c != ABSENT if value is None else c == value for c in chosen) / n


@pytest.mark.parametrize(
    ("style", "key", "probability"),
    [
        ("pixel-art", "hat", 0.01),
        ("pixel-art", "hat", 0.0),
        ("pixel-art", "glasses", 1.0),
        ("pixel-art", "hair", 0.5),
        ("pixel-art", "hair.long01", 0.3),
        ("pixel-art", "skin_color.#8d5524", 0.02),
        ("open-peeps", "head.hatBeanie", 0.01),
        ("open-peeps", "head.turban", 0.0),
    ],
)
def test_probabilities_hold_within_five_standard_errors(style: str, key: str, probability: float) -> None:
    name, _, value = key.partition(".")
    n = 4000
    found = frequency(AvatarSettings(style=style, probabilities={key: probability}), name, value or None, n)
    assert abs(found - probability) <= 5 * sqrt(probability * (1 - probability) / n)


def test_where_nothing_is_said_the_style_decides() -> None:
    """The numbers are those in dicebear's pixel-art.json."""
    for name, expected in {"hat": 0.05, "glasses": 0.2, "beard": 0.05, "accessories": 0.1, "hair": 1.0}.items():
        assert abs(frequency(AvatarSettings(), name, None, 4000) - expected) <= 5 * sqrt(expected * (1 - expected) / 4000)


def test_values_are_equally_likely_and_factors_independent() -> None:
    """Pearson's statistic lies within five standard deviations of its mean: sd of chi-square with k is sqrt(2 k)."""
    chosen = list(choose(AvatarSettings(), range(4000)))
    eyes = read_style("pixel-art").factors["eyes"].values
    skins = read_style("pixel-art").factors["skin_color"].values
    pairs = Counter((row["eyes"], row["skin_color"]) for row in chosen)
    expected = len(chosen) / (len(eyes) * len(skins))
    statistic = sum((pairs[eye, skin] - expected) ** 2 / expected for eye in eyes for skin in skins)
    freedom = len(eyes) * len(skins) - 1
    assert abs(statistic - freedom) < 5 * sqrt(2 * freedom)


def test_which_value_shows_does_not_depend_on_how_seldom_any_does() -> None:
    """SciPy's chi-square of the hats among the 30 in 100 images that have one: all alike, but for one that is weighed."""
    settings = AvatarSettings(probabilities={"hat": 0.3, "hat.variant01": 0.4})
    values = read_style("pixel-art").factors["hat"].values
    counts = Counter(row["hat"] for row in choose(settings, range(6000)) if row["hat"] != ABSENT)
    shown = sum(counts.values())
    expected = [0.4 if value == "variant01" else 0.6 / (len(values) - 1) for value in values]
    assert stats.chisquare([counts[value] for value in values], shown * np.array(expected)).pvalue > 1e-3


@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
def test_a_value_of_probability_nought_is_never_drawn_whatever_chance_gives(
    byte: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At both ends of the range of random numbers, where one in 2^53 would be."""
    values = read_style("pixel-art").factors["hat"].values

    class Chance:
        def digest(self) -> bytes:
            return b"\0" * 8 + byte * 24

    monkeypatch.setattr("latlas.data.avatar_drawing.hashlib.sha256", lambda _: Chance())
    end = 0 if byte == b"\0" else len(values) - 1
    settings = AvatarSettings(probabilities={"hat": 1.0, f"hat.{values[end]}": 0.0})
    (row,) = choose(settings, range(1))
    assert row["hat"] == values[1 if end == 0 else end - 1]


def test_weighing_one_factor_leaves_the_others_as_they_were() -> None:
    plain, hatted = (AvatarSettings(probabilities=p) for p in ({}, {"hat": 1.0}))
    for before, after in zip(choose(plain, range(50)), choose(hatted, range(50)), strict=True):
        assert {k: v for k, v in before.items() if k != "hat"} == {k: v for k, v in after.items() if k != "hat"}


def test_values_that_are_weighed_leave_the_rest_to_the_others_evenly() -> None:
    settings = AvatarSettings(probabilities={"hat.variant01": 0.1, "hat.variant02": 0.0})
    assert settings.weights(read_style("pixel-art").factors["hat"]) == pytest.approx([0.1, 0.0, *[0.9 / 8] * 8])


# The cache


def test_what_was_drawn_once_is_read_and_not_drawn_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = avatars(range(5, 9))

    def never(*arguments: Any, **named: Any) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr("latlas.data.avatars.draw", never)
    again = avatars(range(5, 9))
    assert again.storage.equal(first.storage)
    assert factors(again) == factors(first)
    assert again.name == first.name == "avatars:train[5:9]"


def test_a_part_is_cut_from_the_whole_where_the_whole_is_there(cache: Path) -> None:
    whole = avatars(range(30), count=30)
    part = avatars(range(4, 8), count=30)
    assert part.storage.equal(whole.storage[4:8])
    assert factors(part) == {name: values[4:8] for name, values in factors(whole).items()}
    assert len(folders(cache)) == 1


def test_the_cache_holds_pixels_a_table_and_the_licence_and_the_same_bytes_for_the_same_settings(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = avatars(range(8))
    (folder,) = folders(cache)
    assert {path.name for path in folder.iterdir()} == {"config.json", "images.npy", "factors.parquet", "LICENSE.txt"}
    assert "CC0" in (folder / "LICENSE.txt").read_text()
    assert read_table(folder / "factors.parquet") == factors(images)
    config = json.loads((folder / "config.json").read_text())
    assert config["kind"] == "avatars"
    assert {"dicebear-core", "dicebear-styles", "resvg-py"} <= set(config["provenance"]["versions"])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setenv("LATLAS_CACHE", str(cache.parent / "other"))
    avatars(range(8))
    (other,) = folders(cache.parent / "other")
    assert other.name == folder.name
    assert {path.name: path.read_bytes() for path in other.iterdir()} == before


def test_the_table_is_parquet_that_other_programs_read(cache: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    images = avatars(range(8))
    table = parquet.read_table(folders(cache)[0] / "factors.parquet")
    assert {name: tuple(values) for name, values in table.to_pydict().items()} == factors(images)


def test_other_settings_lie_elsewhere(cache: Path) -> None:
    for settings in ({}, {"seed": 1}, {"split": "test"}, {"pinned": {"hat": "none"}}, {"probabilities": {"hat": 0.5}}):
        avatars(range(2), **settings)
    assert len(folders(cache)) == 5


@pytest.mark.parametrize("damaged", ["images.npy", "factors.parquet"])
def test_a_damaged_cache_is_drawn_again(cache: Path, damaged: str, caplog: pytest.LogCaptureFixture) -> None:
    first = avatars(range(4))
    path = folders(cache)[0] / damaged
    path.write_bytes(path.read_bytes()[:-7] + b"damaged")
    again = avatars(range(4))
    assert again.storage.equal(first.storage)
    assert "drawn again" in caplog.text
    assert damaged in caplog.text
    caplog.clear()
    avatars(range(4))
    assert caplog.text == ""


def test_a_folder_of_another_program_in_the_cache_is_left_alone(cache: Path) -> None:
    avatars(range(4))
    config = folders(cache)[0] / "config.json"
    config.unlink()
    (config.parent / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="already holds something"):
        avatars(range(4))
    assert (config.parent / "mine.txt").read_text() == "mine"


def test_a_cache_that_cannot_be_written_costs_a_warning_and_no_images(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache.write_text("a file where the cache should be")
    images = avatars(range(4))
    assert len(images) == 4
    assert "could not be kept in the cache" in caplog.text


def test_interrupted_drawing_leaves_nothing_behind(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avatar_drawing, "_CHUNK", 4)

    def impatient(task: str, done: int, total: int | None, note: str = "") -> None:
        if done:
            raise KeyboardInterrupt

    for workers in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            load_avatars(AvatarSettings(count=12), workers=workers, progress=impatient)
    assert not cache.exists()


def test_progress_begins_at_nothing_grows_and_ends_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avatar_drawing, "_CHUNK", 10)
    heard: list[tuple[str, int, int | None]] = []
    draw(
        AvatarSettings(), range(3, 28), workers=1, progress=lambda task, done, total, note="": heard.append((task, done, total))
    )
    assert heard == [("drawing pixel-art avatars", done, 25) for done in (0, 10, 20, 25)]


def test_a_script_without_a_guard_gets_its_avatars_and_is_told_of_the_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from latlas.data import avatar_drawing\nfrom latlas.data.avatar_styles import AvatarSettings\n"
        "avatar_drawing._CHUNK = 5\n"
        "pixels, rows = avatar_drawing.draw(AvatarSettings(), range(10), workers=2)\nprint(pixels.shape)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines() == ["(10, 3, 64, 64)"]
    assert "if __name__ == '__main__':" in done.stderr


# Specs


@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        ("avatars", AvatarSettings()),
        ("avatars:train", AvatarSettings()),
        ("avatars:test", AvatarSettings(split="test")),
        ("avatars-peeps:test", AvatarSettings(style="open-peeps", split="test")),
        ("avatars?hat=0.01&glasses=1.0", AvatarSettings(probabilities={"hat": 0.01, "glasses": 1.0})),
        ("avatars:train?hat=0.01,glasses=1", AvatarSettings(probabilities={"hat": 0.01, "glasses": 1.0})),
        ("avatars?hat=none&hair=long01", AvatarSettings(pinned={"hat": "none", "hair": "long01"})),
        ("avatars?skin_color=8D5524", AvatarSettings(pinned={"skin_color": "#8d5524"})),
        ("avatars?skin_color=#8d5524", AvatarSettings(pinned={"skin_color": "#8d5524"})),
        ("avatars-peeps?head.hatBeanie=0.01", AvatarSettings(style="open-peeps", probabilities={"head.hatBeanie": 0.01})),
        (
            "avatars:test?count=7&seed=2&size=32&background=000000",
            AvatarSettings(split="test", count=7, seed=2, size=32, background="#000000"),
        ),
    ],
)
def test_a_spec_names_settings_and_settings_name_their_spec(spec: str, settings: AvatarSettings) -> None:
    assert avatar_settings(spec) == settings
    assert avatar_settings(settings.spec) == settings


def test_the_splits_have_twenty_and_five_thousand_images_where_no_count_is_given() -> None:
    assert [AvatarSettings(split=split).total for split in ("train", "test")] == [20_000, 5_000]


@pytest.mark.parametrize(
    ("spec", "name", "first"),
    [
        ("avatars[10:20]", "avatars:train[10:20]", 10),
        ("avatars:train?hat=1.0[-3:]", "avatars:train?hat=1.0[19997:20000]", 19_997),
        ("avatars:test[2:90][8:18][-2:]", "avatars:test[18:20]", 18),
        ("avatars-peeps?count=5", "avatars-peeps:train?count=5", 0),
    ],
)
def test_a_slice_draws_only_what_is_asked_for_and_its_name_gives_it_again(
    spec: str, name: str, first: int, cache: Path
) -> None:
    images = load_images(spec)
    assert images.name == name
    assert load_images(name).content_hash == images.content_hash
    expected, _ = draw(avatar_settings(spec.partition("[")[0]), range(first, first + 1), workers=1)
    np.testing.assert_array_equal(images.storage[0], expected[0])
    assert np.load(folders(cache)[0] / "images.npy", mmap_mode="r").shape[0] == len(images) < 11


def test_a_size_beside_the_spec_is_the_size_of_the_drawing() -> None:
    images = load_images("avatars[:2]", size=32)
    assert images.image_shape == (3, 32, 32)
    assert images.name == "avatars:train?size=32[0:2]"
    with pytest.raises(SettingError, match=r"says size=48, and a size of 32 was asked for beside it"):
        load_images("avatars?size=48[:2]", size=32)


# Mistakes


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("avatars:trian", "Unknown split of avatars 'trian'. Did you mean 'train'"),
        ("avatar", "Unknown data set 'avatar'. Did you mean 'avatars'"),
        ("avatars?hatt=0.1", "Unknown setting of avatars 'hatt'. Did you mean 'hat'"),
        ("avatars?hat=variant3", "Unknown value of hat 'variant3'. Did you mean 'variant13'|Did you mean 'variant0[0-9]'"),
        ("avatars?hair_color=123456", "Unknown value of hair_color '#123456'"),
        ("avatars?hat.variant99=0.1", "Unknown value of hat 'variant99'"),
        ("avatars-peeps?head=beanie", "Unknown value of head 'beanie'. Did you mean 'hatBeanie'"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(spec: str, words: str) -> None:
    with pytest.raises(UnknownNameError, match=words):
        load_images(spec)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("avatars?hat=5", r"hat is a probability and must lie in \[0, 1\], got 5. For 5 % give 0.05"),
        ("avatars?hat=-0.1", r"must lie in \[0, 1\], got -0.1"),
        ("avatars?hat=nan", r"must lie in \[0, 1\], got nan"),
        ("avatars?hat.variant01=often", r"hat.variant01 is a probability and must be a number in \[0, 1\], got 'often'"),
        ("avatars?hat", r"expected key=value after the '\?', got 'hat'"),
        ("avatars?hat=1&hat=0", "hat is set twice, to 1 and to 0"),
        ("avatars?count=many", "count must be a whole number, got 'many'"),
        ("avatars?count=0", "count of avatars must be at least 1, got 0"),
        ("avatars?size=0", r"size of avatars must lie in \[1, 1024\], got 0"),
        ("avatars?background=reddish", "background must be a colour like #ffffff in lower case, got '#reddish'"),
        ("avatars?hat=none&hat.variant01=0.1", "hat is pinned to none and hat.variant01 weighs it"),
        ("avatars?hat.variant01=0.7&hat.variant02=0.7", "probabilities of hat's values add up to 1.4"),
        ("avatars[7:7]", r"avatars:train\[7:7\] is empty: the set has 20000 images"),
    ],
)
def test_settings_out_of_range_say_what_came_and_what_is_wanted(spec: str, words: str, cache: Path) -> None:
    with pytest.raises(SettingError, match=words):
        load_images(spec)
    assert not cache.exists()


def test_a_colour_has_no_probability_of_its_own() -> None:
    with pytest.raises(SettingError, match=r"hair_color is a colour .* weigh a value: hair_color.VALUE"):
        AvatarSettings(probabilities={"hair_color": 0.5})


def test_an_unknown_style_factor_or_split_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown avatar style 'pixelart'. Did you mean 'pixel-art'"):
        AvatarSettings(style="pixelart")
    with pytest.raises(UnknownNameError, match=r"Unknown factor of avatars 'glases'. Did you mean 'glasses'"):
        AvatarSettings(pinned={"glases": "none"})


@pytest.fixture
def without_the_extra(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("dicebear_styles", "dicebear", "resvg_py", "arro3", "arro3.core", "arro3.io"):
        monkeypatch.setitem(sys.modules, name, None)
    read_style.cache_clear()
    yield
    read_style.cache_clear()


def test_without_the_extra_avatars_say_what_to_install(without_the_extra: None, tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"no module dicebear_styles.*pip install 'latlas\[avatars\]'"):
        load_images("avatars[0:2]")
    with pytest.raises(MissingExtraError, match=r"need arro3.*pip install 'latlas\[avatars\]'"):
        read_table(tmp_path / "factors.parquet")


def test_the_processes_that_draw_do_not_load_torch() -> None:
    code = "import sys, latlas.data.avatar_drawing; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
