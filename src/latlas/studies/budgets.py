"""How much a study may spend: `quick` to see the effect in minutes, `paper` for the sizes of what was published."""

from typing import Literal, get_args

from latlas.base.errors import unknown_name

Budget = Literal["quick", "paper"]
BUDGETS: tuple[Budget, ...] = get_args(Budget)


def as_budget(name: str) -> Budget:
    """Return a budget by its name.

    Raises:
        UnknownNameError: there is no such budget.
    """
    for budget in BUDGETS:
        if budget == name:
            return budget
    raise unknown_name("budget", name, BUDGETS)
