"""`latlas study all`: one page and one record of six studies."""

import json
from pathlib import Path
from typing import Any

import pytest

from latlas.base.provenance import Provenance
from latlas.reports.kl_curve import kl_curve_report
from latlas.reports.kl_studies import joined_report
from latlas.reports.page import write_report
from latlas.studies.kl_curve import study_kl_curve


def test_the_page_has_the_findings_sections_and_numbers_of_each(tmp_path: Path) -> None:
    reports = {name: kl_curve_report(study_kl_curve(ratios)) for name, ratios in (("first", (0.5,)), ("second", (0.2, 2.0)))}
    joined = joined_report(reports, provenance=Provenance(made_by="test"))
    page = write_report(joined, tmp_path / "all")
    record: Any = json.loads((tmp_path / "all" / "report.json").read_text(encoding="utf-8"))
    assert list(record) == ["first", "second"]
    assert len(record["first"]["curves"]) == 1
    assert len(record["second"]["curves"]) == 2
    assert len(joined.sections) == sum(len(report.sections) for report in reports.values())
    assert len(joined.summary) == sum(len(report.summary) for report in reports.values())
    assert page.read_text(encoding="utf-8").count("<section") >= len(joined.sections)


def test_a_budget_that_does_not_exist_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from latlas.cli.main import run

    monkeypatch.setattr("sys.argv", ["latlas", "study", "all", "--budget", "quik"])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip()
    assert "quick" in said
    assert len(said.splitlines()) == 1
