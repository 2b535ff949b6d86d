"""What maps share with every artifact: a card that says what they lose, and a place on the Hub."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from latlas.base.artifacts import CARD, CONFIG, write_config, writing
from latlas.base.cards import FOLDER
from latlas.base.errors import ArtifactError, UnknownNameError
from latlas.base.hub import Pushable
from latlas.base.provenance import Provenance
from latlas.maps.folding import fold
from latlas.maps.linear import LinearMap
from latlas.maps.loading import load_map
from latlas.maps.spatial_map import SpatialMap
from latlas.models import carried_folders
from latlas.models.architectures.registry import architecture
from latlas.models.loading import load_model
from latlas.models.relocated import RelocatedModel
from latlas.models.vae import VAE
from latlas.numerics.patches import PatchGeometry

EVIDENCE: dict[str, Any] = {
    "pairs": 4000,
    "r2": [0.5, None, 0.7],
    "warnings": ["few pairs"],
    "comparison": {"images": "mnist:test", "M": 0.02, "R": 0.01, "standard_errors": {"M": 0.001, "R": 0.001}},
}


def a_linear_map() -> LinearMap:
    weight, bias = torch.randn(3, 2, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    return LinearMap(weight=weight, bias=bias, kind="affine", source="A", target="B", evidence=EVIDENCE)


def a_spatial_map() -> SpatialMap:
    geometry = PatchGeometry(3)
    weight, bias, fill = torch.randn(2, 3, 3, 3).double(), torch.randn(2).double(), torch.randn(3).double()
    return SpatialMap(
        weight=weight, bias=bias, fill=fill, geometry=geometry, kind="affine", source="A", target="B", evidence=EVIDENCE
    )


@pytest.mark.parametrize("make", [a_linear_map, a_spatial_map])
def test_a_maps_card_has_its_errors_and_code_that_runs(make: Any, tmp_path: Path) -> None:
    fitted = make()
    assert isinstance(fitted, Pushable)
    fitted.save_pretrained(tmp_path / "map")
    text = (tmp_path / "map" / CARD).read_text(encoding="utf-8")
    data = ModelCard(text).data
    assert {result.metric_name: result.metric_value for result in data.eval_results} == {"M error": 0.02, "R error": 0.01}
    assert "| mean R2 | 0.6 |" in text
    assert "- few pairs" in text
    spatial = isinstance(fitted, SpatialMap)
    codes = torch.randn(4, 3, 5, 5) if spatial else torch.randn(4, 3)
    world: dict[str, Any] = {"codes": codes, "target": type("Target", (), {"decode": staticmethod(lambda moved: moved)})}
    exec(text.split("```python\n", 1)[1].split("```", 1)[0].replace(FOLDER, str(tmp_path / "map")), world)
    assert world["images"].equal(fitted.apply(codes))
    assert load_map(tmp_path / "map").evidence == EVIDENCE
    assert CARD not in json.loads((tmp_path / "map" / CONFIG).read_text())["files"]


def test_a_folded_model_is_a_model_folder_like_any_other(tmp_path: Path) -> None:
    torch.manual_seed(0)
    target = VAE(architecture("dense", widths=(8,), latent=2), (1, 4, 4), name="B")
    folded = fold(a_linear_map(), target)
    folded.save_pretrained(tmp_path / "model")
    again = load_model(str(tmp_path / "model"))
    assert isinstance(again, RelocatedModel)
    codes = torch.randn(5, 3)
    assert again.decode(codes).equal(folded.decode(codes))
    twice = fold(
        LinearMap(weight=torch.eye(3).double(), bias=torch.zeros(3).double(), kind="affine", source="Z", target="A"), again
    )
    twice.save_pretrained(tmp_path / "twice")
    assert load_model(tmp_path / "twice").fingerprint == twice.fingerprint  # a folded model is a target like any other


def test_a_map_is_found_in_the_folder_of_the_report_on_it(tmp_path: Path) -> None:
    with writing(tmp_path / "a-to-b") as beside:  # as `latlas map` lays it
        a_linear_map().save_pretrained(beside / "map")
        write_config(beside, kind="report", settings={}, provenance=Provenance(made_by="compare"))
    assert load_map(tmp_path / "a-to-b").source == "A"
    with writing(tmp_path / "report") as beside:
        write_config(beside, kind="report", settings={}, provenance=Provenance(made_by="compare"))
    with pytest.raises(ArtifactError, match="holds a latlas report, where a latlas linear-map or spatial-map is needed"):
        load_map(tmp_path / "report")


def test_a_spatial_map_of_the_zoo_is_asked_for_as_any_other_and_none_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        UnknownNameError, match=r"spatial map of the zoo.*digits-dense-to-digits-conv is a linear-map"
    ) as refusal:
        SpatialMap.from_pretrained("zoo:digits-dense-to-digits-conv")
    assert "\n" not in str(refusal.value)
    made = a_spatial_map()
    made.save_pretrained(tmp_path / "some-map")
    monkeypatch.setattr(carried_folders, "CARRIED", tmp_path)
    torch.testing.assert_close(SpatialMap.from_pretrained("zoo:some-map").weight, made.weight, rtol=0, atol=0)
