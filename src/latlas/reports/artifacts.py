"""A tour's folder: the page, the numbers, and every artifact that it made."""

from pathlib import Path

from latlas.base.artifacts import writing
from latlas.reports.page import HTML, write_files
from latlas.reports.tour import tour_report
from latlas.studies.tour import Tour


def write_tour(tour: Tour, folder: str | Path, *, replace: bool = False) -> Path:
    """Write report, models, map and Support Set; return the page's path.

    Raises:
        OutputExistsError: the folder already holds something.
    """
    with writing(folder, replace=replace) as beside:
        for name, model in tour.models.items():
            model.save_pretrained(beside / "models" / name.replace(" ", "-"))
        tour.comparison.documented_map().save_pretrained(beside / "map")
        tour.support.save_pretrained(beside / "support-set")
        write_files(tour_report(tour), beside)
    return Path(folder) / HTML
