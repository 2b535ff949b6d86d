"""The sparsity study: trainings kept and paired, digits without what a decoder ignores, and the page of all of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from latlas.base.errors import ArtifactError, UnknownNameError
from latlas.data.images import ImageSet
from latlas.models.adapters.callables import CallableModel
from latlas.models.architectures.architecture import Architecture
from latlas.models.architectures.dense import Dense
from latlas.models.vae import VAE
from latlas.reports.page import render
from latlas.reports.sparsity import sparsity_report
from latlas.studies import sparsity
from latlas.studies.kept_trainings import Training, kept_training
from latlas.studies.sparsity import SparsitySettings, SparsityStudy, generated_digits, run, study_sparsity

SHAPE = (1, 8, 8)
SETTINGS = SparsitySettings(
    images=160, epochs={"dense": 2, "conv": 1}, seeds=2, controls=1, measured=64, data=("mnist", "fashion-mnist")
)


def blobs(spec: str = "blobs") -> ImageSet:
    generator = torch.Generator().manual_seed(len(spec))
    coarse = torch.rand(200, 1, 2, 2, generator=generator)
    return ImageSet(spec, torch.nn.functional.interpolate(coarse, size=(8, 8), mode="bilinear").round())


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[SparsityStudy, Path]:
    work = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparsity, "load_images", lambda spec, progress: blobs(spec))
        return study_sparsity(SETTINGS, work=work), work


def test_every_cell_is_trained_as_often_as_asked(study: tuple[SparsityStudy, Path]) -> None:
    found, work = study
    assert len(found.runs) == 2 * 2 * (2 + 1 + 1)
    assert len({each.name for each in found.runs}) == len(found.runs)
    assert all((work / each.name / "config.json").is_file() for each in found.runs)
    assert [each.number for each in found.of("mnist", "dense", "kl")] == [0, 1]
    assert {count.term: len(count.collapsed) for count in found.counts} == {"kl": 2, "quadratic": 1, "none": 1}


def test_with_and_without_the_kl_term_a_training_starts_from_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def remember(images: ImageSet, arch: Architecture, **settings: Any) -> Training:
        asked.append(settings)
        return Training(model=VAE(arch, images.image_shape), history=[])

    monkeypatch.setattr(sparsity, "kept_training", remember)
    for term in ("kl", "quadratic", "none"):
        sparsity.trained(blobs(), data="mnist", network="dense", term=term, number=1, epochs=1, seed=0)
    sparsity.trained(blobs(), data="mnist", network="dense", term="kl", number=2, epochs=1, seed=0)
    seeds = [settings["seed"] for settings in asked]
    assert seeds[0] == seeds[1] == seeds[2] != seeds[3]
    assert [settings["objective"].latent_term for settings in asked] == ["kl", "quadratic", "none", "kl"]
    assert {(s["objective"].balance, s["objective"].likelihood, s["objective"].kl_weight) for s in asked} == {
        ("fixed", "bernoulli", 1.0)
    }


def test_trainings_that_are_kept_are_not_made_again(study: tuple[SparsityStudy, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    found, work = study
    monkeypatch.setattr(sparsity, "load_images", lambda spec, progress: blobs(spec))
    monkeypatch.setattr("latlas.studies.kept_trainings.train_vae", lambda *a, **k: pytest.fail("it is there already"))
    assert study_sparsity(SETTINGS, work=work).to_json() == found.to_json()


def test_a_kept_training_with_other_settings_is_refused(tmp_path: Path) -> None:
    arch = Dense(widths=(4,), latent=2)

    def make(images: ImageSet = blobs(), *, arch: Dense = arch, epochs: int = 1, seed: int = 0) -> None:  # noqa: B008
        kept_training(images, arch, name="one", work=tmp_path, epochs=epochs, seed=seed)

    make()
    make()
    for changed in ({"epochs": 2}, {"seed": 1}, {"images": blobs("another")}, {"arch": Dense(widths=(5,), latent=2)}):
        with pytest.raises(ArtifactError, match="other settings"):
            make(**changed)  # type: ignore[arg-type]


def half_blind(used: Sequence[int]) -> CallableModel:
    """Of four variables the decoder looks at some only."""

    def decode(codes: Tensor) -> Tensor:
        return (0.2 * codes[:, list(used)].sum(dim=1)).sigmoid()[:, None, None, None].expand(-1, *SHAPE)

    return CallableModel(name="half blind", image_shape=SHAPE, latent_shape=(4,), decode_with=decode)


def test_digits_are_the_same_without_what_the_decoder_ignores_and_others_without_what_it_uses() -> None:
    collapsed = torch.tensor([True, False, True, False])
    same = generated_digits(half_blind([1, 3]), collapsed, [3, 1, 0, 2], shown=5)
    assert same is not None
    assert same.whole.shape == same.silenced.shape == (5, *SHAPE)
    assert (same.squared_difference, same.largest_difference) == (0.0, 0.0)
    assert same.active_squared_difference > 1e-3
    assert (same.silenced_collapsed, same.silenced_active) == (2, 2)
    other = generated_digits(half_blind([0, 1]), collapsed, [3, 1, 0, 2], shown=5)
    assert other is not None
    assert other.squared_difference > 1e-3
    assert generated_digits(half_blind([0]), torch.zeros(4, dtype=torch.bool), [0, 1, 2, 3]) is None


def test_where_more_have_collapsed_than_are_active_all_active_ones_are_set_to_0_and_the_number_says_so() -> None:
    found = generated_digits(half_blind([1]), torch.tensor([True, False, True, True]), [1, 0, 2, 3], shown=5)
    assert found is not None
    assert (found.silenced_collapsed, found.silenced_active) == (3, 1)
    assert found.active_squared_difference > 1e-3
    none = generated_digits(half_blind([1]), torch.ones(4, dtype=torch.bool), [1, 0, 2, 3], shown=5)
    assert none is not None
    assert (none.silenced_collapsed, none.silenced_active, none.active_squared_difference) == (4, 0, 0.0)


def test_the_numbers_are_those_of_the_diagnoses(study: tuple[SparsityStudy, Path]) -> None:
    found, _ = study
    record = found.to_json()
    for each, told in zip(found.runs, record["runs"], strict=True):
        by_hand = sum(row["variance_of_means"] <= 0.01 for row in told["table"])
        assert told["collapsed_by_rule"]["variance of means <= 0.01"] == by_hand
        share = [
            row["variance_of_means"] / (row["variance_of_means"] + row["mean_posterior_variance"]) for row in told["table"]
        ]
        assert [row["information_share"] for row in told["table"]] == pytest.approx(share)
        assert told["collapsed"] == (by_hand if each.term == "kl" else sum(part <= 0.01 for part in share))
        assert len(told["variance_of_means"]) == SETTINGS.epochs[each.network]
    fewer = record["convolutional_collapses_fewer"]["mnist"]
    dense, conv = ([r.collapsed for r in found.of("mnist", network, "kl")] for network in ("dense", "conv"))
    assert fewer == {"seeds": sum(c < d for c, d in zip(conv, dense, strict=True)), "of": 2}


def test_the_page_shows_every_training_and_the_published_table_of_digits_alone(study: tuple[SparsityStudy, Path]) -> None:
    found, _ = study
    report = sparsity_report(found)
    page = render(report)
    assert all(each.name in page for each in found.runs)
    sections = {section.title: section for section in report.sections}
    assert "published: sum" in str(sections["convolutional on mnist"].blocks)
    assert "published: sum" not in str(sections["convolutional on fashion-mnist"].blocks)
    assert "nan" not in page.lower().split("</style>")[1]


def test_unknown_budgets_and_data_sets_are_refused_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparsity, "load_images", lambda *a, **k: pytest.fail("loaded"))
    with pytest.raises(UnknownNameError, match="paper"):
        run("papers")
    with pytest.raises(UnknownNameError, match="fashion-mnist"):
        run("quick", data=("celeba",))


def test_a_data_set_that_is_named_twice_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(settings: SparsitySettings, **_: object) -> SparsityStudy:
        raise RuntimeError(*settings.data)

    monkeypatch.setattr(sparsity, "study_sparsity", stop)
    with pytest.raises(RuntimeError) as told:
        run("quick", data=("fashion-mnist", "mnist", "fashion-mnist"))
    assert told.value.args == ("fashion-mnist", "mnist")
