"""`latlas study all`: the six studies of the KL term in one run, on one page."""

from contextlib import ExitStack
from pathlib import Path

from latlas.cli.options import Budget, Device, Json, Out, Replace, Seed, Work


def every_study(
    budget: Budget = "quick",
    out: Out = None,
    work: Work = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Run the six studies of the KL term: kl-curve, trajectories, coverage-3d, sparsity, noise-injection, variance-law.

    With --out: one page, and every number in report.json.

    Example: latlas study all --budget quick --out kl
    """
    import tempfile

    from latlas.base.artifacts import check_free
    from latlas.base.provenance import Provenance
    from latlas.cli.output import check_outside, page_of, tell_study
    from latlas.cli.progress import shown
    from latlas.reports.kl_curve import kl_curve_report
    from latlas.reports.kl_studies import joined_report
    from latlas.reports.latent_cloud import latent_cloud_report
    from latlas.reports.noise_injection import noise_injection_report
    from latlas.reports.page import Report
    from latlas.reports.sparsity import sparsity_report
    from latlas.reports.trajectories import trajectories_report
    from latlas.reports.variance_law import variance_law_report
    from latlas.studies import kl_curve, latent_cloud, noise_injection, sparsity, trajectories, variance_law
    from latlas.studies.budgets import as_budget

    as_budget(budget)
    if out is not None:
        check_free(out, replace=replace)
    check_outside(("--work", work), ("--out", out))
    with ExitStack() as stack:
        progress = stack.enter_context(shown())
        # The last three train the same networks: once is enough.
        place = work if work is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        reports: dict[str, Report] = {
            "kl-curve": kl_curve_report(kl_curve.run(budget, seed, progress)),
            "trajectories": trajectories_report(trajectories.run(budget, seed, progress)),
            "coverage-3d": latent_cloud_report(latent_cloud.run(budget, seed, progress)),
            "sparsity": sparsity_report(sparsity.run(budget, seed, progress, work=place, device=device)),
            "noise-injection": noise_injection_report(noise_injection.run(budget, seed, progress, work=place, device=device)),
            "variance-law": variance_law_report(variance_law.run(budget, seed, progress, work=place, device=device)),
        }
    provenance = Provenance(made_by="latlas study all", seed=seed, made_from={}, settings={"budget": budget})
    report = joined_report(reports, provenance=provenance)
    tell_study(report.numbers, report.summary, page=page_of(report, out, replace=replace), as_json=json)
