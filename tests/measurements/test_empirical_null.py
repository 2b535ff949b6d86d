"""The empirical null: all of an unmixed control, and of a mixed one the part that is ordinary."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from latlas.base.errors import IllPosedError, NonFiniteError
from latlas.measurements import empirical_null
from latlas.measurements.conformal import adjusted_p_values, conformal_p_values
from latlas.measurements.empirical_null import EmpiricalNull, fit_null

# Shapes that errors have: symmetric, skewed to either side, with tails.
LAWS = {
    "normal": stats.norm(),
    "skewed": stats.gamma(2.5, scale=1 / math.sqrt(2.5)),
    "loggamma": stats.loggamma(3),
    "tailed": stats.t(5, scale=0.8),
}


def draw(law: str, n: int, seed: int) -> Tensor:
    return torch.from_numpy(LAWS[law].rvs(n, random_state=seed)).double()


@pytest.mark.parametrize("law", LAWS)
def test_an_unmixed_control_gives_exactly_the_conformal_p_values(law: str) -> None:
    control, fresh = draw(law, 600, 1), draw(law, 200, 2)
    null = fit_null(control)
    assert not null.mixed
    assert null.apart == 0.0
    assert null.p_values(fresh).equal(conformal_p_values(fresh, control))
    assert null.smallest == pytest.approx(1 / 601)


@pytest.mark.parametrize(("law", "share"), [("normal", 0.3), ("loggamma", 0.1), ("loggamma", 0.4), ("tailed", 0.3)])
def test_a_planted_part_of_the_control_is_found_and_hides_nothing(law: str, share: float) -> None:
    """Of 38 planted landmarks most are missed, of 90 ordinary ones few; ranks among the whole control find none."""
    planted = int(1000 * share)
    control = draw(law, 1000, 3)
    control[:planted] += 4.0 + 0.5 * draw("normal", planted, 4)
    landmarks = torch.cat([draw(law, 90, 5), draw(law, 38, 6) + 4.0])
    null = fit_null(control)
    assert null.mixed
    assert null.apart == pytest.approx(share, abs=0.05)
    missed = adjusted_p_values(null.p_values(landmarks)) <= 0.05
    assert float(missed[90:].double().mean()) >= 0.8
    assert float(missed[:90].double().mean()) <= 0.1
    assert not bool((adjusted_p_values(conformal_p_values(landmarks, control)) <= 0.05).any())


def test_the_probability_of_being_ordinary_never_rises_with_the_score() -> None:
    control = torch.cat([draw("normal", 700, 7), 5 + draw("normal", 300, 8)])
    null = fit_null(control)
    assert null.scores.equal(control.sort().values)
    assert bool((null.ordinary.diff() <= 0).all())
    assert bool((null.ordinary[:500] == 1).all())
    assert float(null.ordinary[-1]) < 1e-3


def test_p_values_are_ranks_weighed_by_the_probability_of_being_ordinary() -> None:
    """Against the sum written out, ties included."""
    null = EmpiricalNull(
        scores=torch.tensor([0.0, 1.0, 1.0, 2.0]).double(), ordinary=torch.tensor([1.0, 1.0, 0.5, 0.25]).double(), evidence=20.0
    )
    for score in (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0):
        known = zip(null.scores.tolist(), null.ordinary.tolist(), strict=True)
        expected = (1 + sum(weight for other, weight in known if other >= score)) / (1 + 2.75)
        assert float(null.p_values(torch.tensor([score]).double())) == pytest.approx(expected)
    assert null.smallest == pytest.approx(1 / 3.75)


# Location, log scale, skew, log of the tail beyond its least; logit of the share, centre and log scale of the part above.
SKEWED = np.array([0.3, -0.4, 0.5, -0.2, 0.4, 2.5, -0.7])


def sinh_arcsinh(rows: np.ndarray, law: np.ndarray) -> np.ndarray:
    """Jones and Pewsey 2009: the density of z whose sinh(tail arcsinh(z) - skew) is normal, by a numerical derivative."""

    def drawn(x: np.ndarray) -> np.ndarray:
        return np.sinh((0.5 + np.exp(law[3])) * np.arcsinh((x - law[0]) / np.exp(law[1])) - law[2])

    return stats.norm.pdf(drawn(rows)) * (drawn(rows + 1e-6) - drawn(rows - 1e-6)) / 2e-6


@pytest.mark.parametrize("logit", [-3.0, 0.0, 40.0])
def test_the_two_parts_are_the_laws_they_are_said_to_be_and_share_at_most_half(logit: float) -> None:
    law = SKEWED.copy()
    law[4] = logit
    rows, share = np.linspace(-2, 4, 50), 0.5 / (1 + math.exp(-logit))
    lower, upper = empirical_null._log_parts(rows, law)
    np.testing.assert_allclose(np.exp(lower), (1 - share) * sinh_arcsinh(rows, law), rtol=1e-5)
    np.testing.assert_allclose(np.exp(upper), share * stats.norm(2.5, np.exp(-0.7)).pdf(rows), rtol=1e-7)


def test_the_evidence_is_the_difference_of_bic_and_splits_from_ten_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Schwarz 1978: log(n) for each of 4 or 7 parameters, less twice the log-likelihood of the laws that the search found."""
    found: dict[str, np.ndarray] = {}
    for name in ("_fit_one", "_fit_two"):
        search = getattr(empirical_null, name)
        monkeypatch.setattr(empirical_null, name, lambda rows, n=name, s=search: found.setdefault(n, s(rows)))
    control = torch.cat([draw("normal", 260, 7), 3.5 + 0.7 * draw("normal", 60, 8)])
    null = fit_null(control)
    values = np.sort(control.numpy())
    rows = (values - np.median(values)) / stats.iqr(values)
    one, two = found["_fit_one"], found["_fit_two"]
    share = 0.5 / (1 + np.exp(-two[4]))
    both = (1 - share) * sinh_arcsinh(rows, two) + share * stats.norm(two[5], np.exp(two[6])).pdf(rows)
    likelihoods = np.log(sinh_arcsinh(rows, one)).sum(), np.log(both).sum()
    assert null.evidence == pytest.approx(2 * (likelihoods[1] - likelihoods[0]) - 3 * math.log(320), rel=1e-3)
    for evidence, mixed in ((9.9, False), (10.1, True)):
        monkeypatch.setattr(empirical_null, "_bic", lambda rows, law, e=evidence: e if len(law) == 4 else 0.0)
        assert fit_null(control).mixed is mixed


def test_a_part_stands_apart_where_95_in_100_of_the_ordinary_lie_below_its_centre() -> None:
    """With a tail of 1 and no skew the ordinary law is SciPy's normal."""
    law = np.array([0.2, np.log(1.5), 0.0, np.log(0.5), 0.0, 0.0, 0.0])
    for level, apart in ((0.949, False), (0.951, True)):
        law[5] = stats.norm(0.2, 1.5).ppf(level)
        assert empirical_null._stands_apart(law) is apart


def test_scale_and_place_of_scores_do_not_matter() -> None:
    control = torch.cat([draw("normal", 350, 9), 5 + draw("normal", 150, 10)])
    first, second = fit_null(control), fit_null(3.0 + 1e-4 * control)
    assert first.ordinary.sub(second.ordinary).abs().max() < 1e-3


def test_a_control_that_is_trusted_is_not_parted() -> None:
    control = torch.cat([draw("normal", 350, 11), 5 + draw("normal", 150, 12)])
    assert fit_null(control).mixed
    assert not fit_null(control, mixed=False).mixed


def test_a_control_that_gives_no_null_is_refused() -> None:
    with pytest.raises(IllPosedError, match="none were given"):
        fit_null(torch.zeros(0).double())
    with pytest.raises(IllPosedError, match="at least 100 images, got 99"):
        fit_null(draw("normal", 99, 13))
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        fit_null(torch.tensor([0.0, math.inf]).double())
    with pytest.raises(NonFiniteError, match="A score is NaN"):
        fit_null(draw("normal", 200, 14)).p_values(torch.tensor([math.nan]).double())
    assert not fit_null(torch.ones(200).double()).mixed  # all alike: there is nothing to part
