"""Model cards: front matter that any YAML reader takes, code that runs, numbers that were measured."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st

from latlas.base.artifacts import CARD, CONFIG, read_config, read_json
from latlas.base.cards import FOLDER, Card, errors_of, render_card, with_license
from latlas.base.provenance import Provenance
from latlas.data.images import ImageSet
from latlas.encodings.encoding import Encoding
from latlas.maps.folding import fold
from latlas.maps.linear import LinearMap
from latlas.models.architectures.registry import architecture
from latlas.models.vae import VAE
from latlas.samplers.fit import fit_sampler
from latlas.supports.sectors import Sectors
from latlas.supports.support_set import SupportSet

PROVENANCE = Provenance(
    made_by="fit_map", seed=3, made_from={"source": "ab" * 32}, settings={"kind": "affine", "ridge": None, "path": {"a": 1}}
)
COMPARISON: dict[str, Any] = {
    "images": "mnist:test",
    "fitted_on": "mnist:train",
    "source": "A",
    "R": 0.0123456,
    "M": 3e-05,
    "L": 0.4,
    "target_R": 1,
    "no_map": None,
    "unheard_of": 0.5,
    "standard_errors": {"R": 0.001, "L": None, "M": 2e-07, "target_R": 0.5, "no_map": None, "unheard_of": 0.1, "gone": 1.0},
}


def a_card(**changes: Any) -> Card:
    settings = {"title": "A → B", "summary": "Carries codes.", "usage": "import latlas", "kind": "linear-map", **changes}
    return Card(**settings)


def front_matter(text: str) -> dict[str, Any]:
    opening, middle, _ = text.split("---\n", 2)
    assert opening == ""
    record = yaml.safe_load(middle)
    assert isinstance(record, dict)
    return record


def rows(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading, its head and rule left out."""
    body = text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in body.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines][2:]


# Front matter


def test_the_front_matter_says_library_and_tags_and_no_licence() -> None:
    found = front_matter(render_card(a_card(tags=("affine", "latlas")), PROVENANCE))
    assert found == {"library_name": "latlas", "tags": ["latlas", "linear-map", "affine"]}


def test_the_hubs_own_reader_finds_every_error_with_its_value() -> None:
    data = ModelCard(render_card(a_card(comparison=COMPARISON), PROVENANCE)).data
    assert data.library_name == "latlas"
    assert data.metrics == ["mse"]
    assert data.model_name == "A → B"
    found = {result.metric_name: result.metric_value for result in data.eval_results}
    assert found == {"M error": 3e-05, "target R": 1.0, "R error": 0.0123456, "L error": 0.4, "unheard of": 0.5}
    assert {(result.dataset_name, result.task_type) for result in data.eval_results} == {("mnist:test", "relocation")}


@given(st.text(max_size=30), st.text(max_size=30))
def test_whatever_a_model_is_called_the_card_parses(name: str, images: str) -> None:
    text = render_card(
        a_card(title=name, tags=(name,), comparison=COMPARISON | {"images": images}, facts={"model": name}), PROVENANCE
    )
    found = front_matter(text)
    shown = " ".join("".join(sign if sign.isprintable() else " " for sign in name).split())
    assert found["model-index"][0]["name"] == shown
    assert shown in found["tags"]
    assert [len(row) for row in rows(text, "What it is")] == [2]
    assert {len(row) for row in rows(text, "What it loses")} == {4}


# Tables


def test_the_table_of_errors_has_what_was_measured_and_the_m_error_first() -> None:
    assert errors_of(COMPARISON) == [
        ("M", 3e-05, 2e-07), ("target_R", 1.0, 0.5), ("R", 0.0123456, 0.001), ("L", 0.4, None), ("unheard_of", 0.5, 0.1)
    ]  # fmt: skip
    text = render_card(a_card(comparison=COMPARISON), PROVENANCE)
    found = rows(text, "What it loses")
    assert found[0] == ["M error", "3e-05", "2e-07", "the target decodes the relocated codes"]
    assert found[3][:3] == ["L error", "0.4", "–"]
    assert found[4] == ["unheard of", "0.5", "0.1", ""]
    assert "Measured on mnist:test, fitted on mnist:train." in text


@pytest.mark.parametrize("comparison", [None, {}, {"images": "x", "standard_errors": {}}, {"standard_errors": {"M": 0.1}}])
def test_without_measured_errors_there_is_neither_a_table_nor_a_metric(comparison: dict[str, Any] | None) -> None:
    text = render_card(a_card(comparison=comparison), PROVENANCE)
    assert "What it loses" not in text
    assert front_matter(text).keys() == {"library_name", "tags"}


def test_numbers_that_are_none_are_shown_as_none() -> None:
    record = {"M": float("nan"), "R": 1e-12, "standard_errors": {"M": float("inf"), "R": 0.0}}
    text = render_card(a_card(comparison=record), PROVENANCE)
    assert rows(text, "What it loses")[0][1:3] == ["–", "–"]
    values = [metric["value"] for metric in front_matter(text)["model-index"][0]["results"][0]["metrics"]]
    assert values[0] != values[0]
    assert values[1] == 1e-12


def test_facts_are_words_numbers_and_short_lists() -> None:
    facts = {
        "word": "a|b\nc", "yes": True, "many": 60000, "small": 1.23456e-9, "shape": (1, 28, 28), "none": None, "nan": float("nan"),
        "long": list(range(9)), "nested": {"a": 1}, "matrix": [[1]], "empty": [],
    }  # fmt: skip
    found = dict(rows(render_card(a_card(facts=facts), PROVENANCE), "What it is"))  # type: ignore[arg-type]
    assert found == {
        "word": r"a\|b c",
        "yes": "yes",
        "many": "60,000",
        "small": "1.235e-09",
        "shape": "1 × 28 × 28",
        "nan": "–",
    }


def test_the_provenance_is_told_and_no_more_of_it_than_there_is() -> None:
    found = dict(rows(render_card(a_card(), PROVENANCE), "Provenance"))  # type: ignore[arg-type]
    assert {name: found.pop(name) for name in ("made by", "seed", "source (content hash)", "kind")} == {
        "made by": "`fit_map`",
        "seed": "3",
        "source (content hash)": f"`{'ab' * 8}`",
        "kind": "affine",
    }
    assert {f"{name} version": version for name, version in PROVENANCE.versions.items()} == found


# A licence


def test_a_licence_is_put_in_once_and_replaced_the_next_time() -> None:
    text = render_card(a_card(), PROVENANCE)
    once = with_license(text, "mit")
    assert front_matter(once) == {**front_matter(text), "license": "mit"}
    twice = with_license(once, "cc0-1.0")
    assert front_matter(twice)["license"] == "cc0-1.0"
    assert twice.replace('license: "cc0-1.0"\n', "") == text


def test_a_card_that_its_owner_wrote_without_front_matter_gets_one() -> None:
    text = with_license("# Mine\n\n---\n", "mit")
    assert front_matter(text) == {"license": "mit"}
    assert text.endswith("# Mine\n\n---\n")


# In artifacts


def _vae() -> VAE:
    torch.manual_seed(0)
    return VAE(architecture("dense", widths=(8,), latent=2), (1, 4, 4), name="digits")


def _sampler() -> Any:
    codes = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    encoding = Encoding(
        mean=codes, log_variance=None, model="digits", images="mnist", images_hash="ab", provenance=Provenance(made_by="encode")
    )
    return fit_sampler("moments", encoding)


def _support() -> SupportSet:
    return SupportSet(
        images=ImageSet("members", torch.rand(2, 1, 4, 4)),
        indices=torch.tensor([4, 7]),
        codes=torch.randn(2, 2),
        sector=torch.tensor([0, 1]),
        sectors=Sectors(variables=(1,), threshold=0.5, centre=(0.0,)),
        occupancy=torch.tensor([3, 4]),
        model="digits",
        chosen_from="mnist:test",
    )


def _folded() -> Any:
    weight, bias = torch.randn(3, 2, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    evidence = {"pairs": 100, "comparison": COMPARISON}
    return fold(LinearMap(weight=weight, bias=bias, kind="affine", source="A", target="B", evidence=evidence), _vae())


ARTIFACTS = {"vae": _vae, "sampler": _sampler, "support-set": _support, "relocated-model": _folded}


@pytest.fixture(params=ARTIFACTS)
def artifact(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    ARTIFACTS[request.param]().save_pretrained(tmp_path / request.param)
    return tmp_path / request.param


def test_every_artifact_has_a_card_of_its_kind(artifact: Path) -> None:
    text = (artifact / CARD).read_text(encoding="utf-8")
    assert front_matter(text)["tags"][:2] == ["latlas", artifact.name]
    assert ModelCard(text).data.library_name == "latlas"
    assert str(artifact.parent) not in text  # no path of this machine
    assert ("## What it loses" in text) == (artifact.name == "relocated-model")


def test_the_code_on_the_card_is_python_that_loads_from_the_folder(artifact: Path) -> None:
    text = (artifact / CARD).read_text(encoding="utf-8")
    code = text.split("```python\n", 1)[1].split("```", 1)[0]
    assert f'"{FOLDER}"' in code
    ast.parse(code)
    if artifact.name == "relocated-model":
        return  # what load_model knows of it is tested beside it
    world: dict[str, Any] = {"images": torch.rand(3, 1, 4, 4), "codes": torch.randn(3, 2), "model": _vae()}
    exec(code.replace(FOLDER, str(artifact)), world)
    made = {"vae": "reconstructions", "sampler": "images", "support-set": "images"}[artifact.name]
    assert world[made].shape[1:] == (1, 4, 4)


def test_a_card_may_be_edited_and_removed(artifact: Path) -> None:
    assert CARD not in "".join(read_json(artifact / CONFIG)["files"])
    (artifact / CARD).write_text("# Mine")
    read_config(artifact, kind=artifact.name)
    (artifact / CARD).unlink()
    read_config(artifact, kind=artifact.name)


def test_the_same_artifact_has_the_same_card(tmp_path: Path) -> None:
    for name in ("first", "second"):
        _vae().save_pretrained(tmp_path / name)
    assert (tmp_path / "first" / CARD).read_bytes() == (tmp_path / "second" / CARD).read_bytes()
