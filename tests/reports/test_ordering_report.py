"""The page of an order: what it says is what the order says, ties and roughness among it."""

from typing import Any

import pytest
import torch
from scipy.stats import kendalltau

from latlas.base.provenance import Provenance
from latlas.measurements.ordering import Ordering
from latlas.reports.ordering import ordering_findings, ordering_record, ordering_report
from latlas.reports.page import render

SCORES = [0.2, 0.9, 0.4, 0.39, 0.0]


def ordering(**changes: Any) -> Ordering:
    score = torch.tensor(changes.pop("scores", SCORES), dtype=torch.float64)
    settings: dict[str, Any] = {
        "by": "gain",
        "model": "a <b>",
        "images": "some",
        "count": 3000,
        "variables": tuple(score.argsort(descending=True).tolist()),
        "score": score,
        "standard_error": torch.full((5,), 0.01, dtype=torch.float64),
        "seen": torch.tensor([64, 64, 128, 128, 64]),
        "tied": (False, True, None, None),
        "top": 2,
        "fast": True,
        "confidence": 0.9,
        "decodes": 1234,
        "exhaustive_decodes": 18000,
        "provenance": Provenance(made_by="test"),
    }
    return Ordering(**{**settings, **changes})


def test_a_tie_at_the_border_is_a_warning_that_names_both() -> None:
    levels = {finding.level: finding for finding in ordering_findings(ordering())}
    assert "2 and 3 are within error" in levels["warning"].headline
    assert "With 90 % confidence" in levels["good"].text
    assert "1,234 decodes instead of 18,000" in levels["good"].text
    assert levels["good"].headline == "Most informative first: 1, 2."


def test_a_clear_border_gives_no_warning() -> None:
    found = ordering_findings(ordering(tied=(False, False, None, None)))
    assert [finding.level for finding in found] == ["good"]


def test_ties_are_runs_of_neighbours() -> None:
    found = ordering(top=None, fast=False, tied=(False, True, True, False))
    assert found.variables == (1, 2, 3, 0, 4)
    assert found.ties() == [(2, 3, 0)]
    assert not found.border_tied
    assert "2 ≈ 3 ≈ 0" in ordering_findings(found)[-1].headline
    assert "Measured on all 3,000 images." in ordering_findings(found)[0].text


def test_the_record_holds_each_alternative_and_its_agreement() -> None:
    other = ordering(by="variance", scores=[1.0, 2.0, 4.0, 3.0, 0.5], fast=False)
    record = ordering_record(ordering(), [other])
    tau = kendalltau(SCORES, [1.0, 2.0, 4.0, 3.0, 0.5]).statistic
    assert record["alternatives"]["variance"]["kendall_tau"] == pytest.approx(tau)
    assert record["alternatives"]["variance"]["variables"] == [2, 3, 1, 0, 4]


def test_the_page_shows_ranks_and_escapes_names() -> None:
    other = ordering(by="kl", scores=[1.0, 2.0, 4.0, 3.0, 0.5], fast=False)
    page = render(ordering_report(ordering(), [other]))
    assert "a &lt;b&gt;" in page
    assert "rank by KL" in page
    assert "A fast order is rough beyond its top" in page
    assert "Beyond the top nobody looked for ties." in page


@pytest.mark.parametrize("scores", [[0.0] * 5, [-1.0, -2.0, -3.0, -4.0, -5.0], [float("inf")] * 5])
def test_scores_that_cannot_be_drawn_leave_the_table(scores: list[float]) -> None:
    page = render(ordering_report(ordering(scores=scores, tied=(True,) * 4, fast=False)))
    assert "<table>" in page
    assert "<svg" not in page
