"""Range calibrations that are kept: inverting a generator's own samples takes a minute, and is the same for everybody."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from latlas.app.charts import Atlas, Chart
from latlas.base.artifacts import load_tensors, read_config, save_tensors, write_config, writing
from latlas.base.errors import ArtifactError, MissingPathError, OutputExistsError
from latlas.base.progress import Progress, silent
from latlas.base.provenance import UNSTATED, Provenance
from latlas.data.builtin import cache_folder
from latlas.data.images import ImageSet
from latlas.encodings.aggregate import with_codes_of
from latlas.inversion.descent import Budget
from latlas.models.protocols import Generator, require_generator
from latlas.studies.range_calibration import RangeCalibration, calibrate_range
from latlas.studies.range_procedure import Procedure, range_procedure

logger = logging.getLogger(__name__)

KIND = "range calibration"
CARRIED = Path(__file__).parent / "carried"  # of models that latlas carries; the others are kept in the cache
SAMPLES = 99  # own samples: the smallest possible p-value is 1 in 100
# The first budget that brings back own samples, in a trial on other samples than those of the calibration: chosen on the same
# ones, they would be brought back better than a visitor's image is.
BUDGETS = (Budget(steps=60, learning_rate=0.1), Budget(steps=200, learning_rate=0.1))
_TRIED, _TRIAL_SEED, _SEED = 40, 1, 0
_TENSORS = "calibration.safetensors"


def generator_of(atlas: Atlas, chart: Chart, progress: Progress = silent) -> Generator:
    """Return the chart's model as something that draws codes: by itself, else those of the first half of its images."""
    if chart.draws:
        return require_generator(chart.model, "A range test")
    half = chart.images.slice(0, max(2, len(chart.images) // 2))
    return atlas.kept.get(("aggregate", chart.label), lambda: with_codes_of(chart.model, half, progress=progress))


def calibration(
    atlas: Atlas, chart: Chart, *, folders: tuple[Path, ...] | None = None, progress: Progress = silent
) -> RangeCalibration:
    """Return what a small budget achieves on the generator's own samples: what is kept, else measured now and kept.

    Args:
        atlas: that keeps it while the page is served.
        chart: whose model.
        folders: where calibrations lie; the last is written to. None: those that latlas carries, and the cache.
        progress: told in images, where it has to be measured.

    Raises:
        LatlasError: as `calibrate_range` has it.
    """
    places = folders if folders is not None else (CARRIED, cache_folder() / "range-calibrations")

    def find() -> RangeCalibration:
        drawing = generator_of(atlas, chart, progress)
        name = _key(drawing)
        for place in places if name is not None else ():
            try:
                return read_calibration(place / str(name), drawing)
            except MissingPathError:
                continue
            except ArtifactError as damaged:  # a cache that is damaged is no cache
                logger.warning("%s It is measured again.", damaged)
        found = _measured(drawing, progress)
        if name is not None and places:
            try:
                write_calibration(found, places[-1] / name, replace=True)
            except (ArtifactError, OutputExistsError) as failure:  # a cache that cannot be written costs time, no result
                logger.warning("The calibration is not kept: %s", failure)
        return found

    return atlas.kept.get(("calibration", chart.label), find)


def write_calibration(found: RangeCalibration, folder: Path, *, replace: bool = False) -> None:
    """Write a calibration that has no recoder beside its generator and no features as an artifact folder.

    Raises:
        OutputExistsError, ArtifactError: it cannot be written there.
    """
    with writing(folder, replace=replace) as beside:
        tensors = {"errors": found.errors, "examples": found.examples.storage, "example codes": found.example_codes}
        save_tensors(beside / _TENSORS, tensors)
        settings: dict[str, Any] = {
            "generator": found.generator,
            "recovered": found.recovered,
            "agreeing": found.agreeing,
            "unrelated_error": found.unrelated_error,
            "steps": found.budget.steps,
            "learning_rate": found.budget.learning_rate,
        }
        provenance = Provenance(
            made_by="calibrate_range",
            seed=found.seed,
            made_from={"generator": found.fingerprint},
            settings=found.procedure.settings,
        )
        write_config(beside, kind=KIND, settings=settings, provenance=provenance)


def read_calibration(folder: Path, drawing: Generator) -> RangeCalibration:
    """Read what `write_calibration` wrote, of this very generator.

    Raises:
        MissingPathError: there is none.
        ArtifactError: it is damaged, or of another generator or procedure.
    """
    config = read_config(folder, kind=KIND)
    tensors = load_tensors(folder / _TENSORS)
    try:
        settings = config["settings"]
        budget = Budget(steps=int(settings["steps"]), learning_rate=float(settings["learning_rate"]))
        procedure = _procedure(drawing, budget)
        provenance = Provenance.from_json(config["provenance"])
        if provenance.made_from["generator"] != drawing.fingerprint or provenance.settings != procedure.settings:
            raise ArtifactError(f"{folder} is of another generator than {drawing.name}, or was measured in another way.")
        return RangeCalibration(
            generator=drawing.name,
            errors=tensors["errors"],
            feature_errors=None,
            recovered=float(settings["recovered"]),
            agreeing=float(settings["agreeing"]),
            unrelated_error=float(settings["unrelated_error"]),
            procedure=procedure,
            examples=ImageSet(name=f"samples of {drawing.name}", storage=tensors["examples"]),
            example_codes=tensors["example codes"],
            fingerprint=drawing.fingerprint,
            model=drawing,
        )
    except (KeyError, TypeError, ValueError) as failure:
        raise ArtifactError(f"{folder} is not a readable calibration ({failure}).") from failure


def _measured(drawing: Generator, progress: Progress) -> RangeCalibration:
    budget = BUDGETS[-1]
    for tried in BUDGETS[:-1]:
        if calibrate_range(drawing, samples=_TRIED, budget=tried, seed=_TRIAL_SEED, progress=progress).budget_is_enough:
            budget = tried
            break
    return calibrate_range(drawing, samples=SAMPLES, budget=budget, seed=_SEED, progress=progress)


def _procedure(drawing: Generator, budget: Budget) -> Procedure:
    return range_procedure(
        drawing, budget=budget, start="hybrid", starts=2, recoder=None, prior_weight=0.0, features=None, seed=_SEED
    )


def _key(drawing: Generator) -> str | None:
    if drawing.fingerprint == UNSTATED:
        return None
    asked = [drawing.fingerprint, SAMPLES, *(_procedure(drawing, budget).settings for budget in BUDGETS)]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:24]
