"""The six studies of the KL term as one page."""

from collections.abc import Mapping
from dataclasses import replace

from latlas.base.provenance import Provenance
from latlas.reports.page import Report


def joined_report(reports: Mapping[str, Report], *, provenance: Provenance) -> Report:
    """Return one page of several: the findings of all, then the sections of each, and its numbers under its name.

    Args:
        reports: by the name of their study.
        provenance: of the whole.
    """
    return Report(
        title="What the KL term does to a latent space",
        subtitle="Six studies: watched, provoked, measured.",
        summary=[finding for report in reports.values() for finding in report.summary],
        sections=[
            replace(section, title=f"{report.title}: {section.title}")
            for report in reports.values()
            for section in report.sections
        ],
        numbers={name: report.numbers for name, report in reports.items()},
        provenance=provenance,
    )
