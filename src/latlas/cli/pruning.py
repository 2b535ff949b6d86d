"""`latlas prune`: a model without its collapsed variables, or with the few that buy the most."""

from pathlib import Path
from typing import Annotated

import typer

from latlas.cli.options import Data, Device, Json, Model, Replace, Resize


def prune(
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="Folder for the new model; it must not exist yet.")],
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep", help="Keep this many variables, 1 or more, those of the largest gain.", show_default="all in use"
        ),
    ] = None,
    test: Annotated[
        str | None, typer.Option("--test", metavar="DATA", help="Measure errors on these images.", show_default="DATA")
    ] = None,
    resize: Resize = None,
    device: Device = "auto",
    json: Json = False,
    replace: Replace = False,
) -> None:
    """Write the same model without its collapsed variables.

    What the collapsed variables contribute is folded into the network as constants: their means on DATA. With --keep, active
    variables go too, those of the smallest gain first, and the cost is stated. What lies at --out is a model that every verb takes;
    inside are the maps between old and new codes (to-pruned, to-original) and a page (report).

    Example: latlas prune zoo:digits-dense mnist:train --test mnist:test --out runs/digits-pruned
    """
    from latlas.base.artifacts import check_free, writing
    from latlas.base.errors import CapabilityError
    from latlas.cli.models import model_on
    from latlas.cli.output import print_findings, print_json, print_table, say_where
    from latlas.cli.progress import shown
    from latlas.data.loading import load_images
    from latlas.models.pruning import prunes_to_a_network
    from latlas.reports.page import write_report
    from latlas.reports.pruning import pruning_findings, pruning_report
    from latlas.studies import pruning as studies

    check_free(out, replace=replace)
    loaded = model_on(model, device)
    if not prunes_to_a_network(loaded):
        raise CapabilityError(
            f"{loaded.name} is no VAE that latlas trained, and without some of its variables it could not be written. "
            "In Python, latlas.prune gives one that lives in memory."
        )
    with shown() as progress:
        images = load_images(data, size=resize, progress=progress)
        judges = None if test is None else load_images(test, size=resize, progress=progress)
        result = studies.prune(loaded, images, keep=keep, test=judges, progress=progress)
    with writing(out, replace=replace) as beside:
        write_report(pruning_report(result, loaded, images if judges is None else judges), beside / "report")
        result.write_files(beside)
    if json:
        print_json(result.to_json())
        return
    columns = ("variable", "becomes", "constant", "variance_of_means", "kl_nats", "gain", "verdict")
    print_table(
        f"{result.original} on {result.images}",
        [column.replace("_", " ") for column in columns],
        [[row[key] for key in columns] for row in result.table],
    )
    print_findings((finding.level, finding.headline, finding.text) for finding in pruning_findings(result))
    say_where(out, "pruned model")
