"""Several visitors at once: no request is lost, every answer is its visitor's own, and little is kept of what they uploaded."""

import asyncio
import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("gradio", reason="the explorer needs gradio")

ROOT = Path(__file__).parents[2]
VISITORS, ROUNDS = 4, 2
SIDE = 8


@pytest.fixture(scope="module")
def visitors() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
        yield importlib.import_module("page_visitors")


def test_of_visitors_at_once_each_gets_every_answer_and_its_own(visitors: ModuleType, tmp_path: Path) -> None:
    """In the small what `python benchmarks/torture_page.py` does for five minutes."""
    command = [sys.executable, str(Path(__file__).with_name("painted_page.py"))]
    tally = visitors.Tally()
    with importlib.import_module("torture_page").serving(command, tmp_path / "page") as server:
        until = time.monotonic() + 240
        plans = [
            visitors.Visit(
                number=number, models=("painter", "turned"), side=SIDE, until=until, rounds=ROUNDS, pause=(0.0, 0.05)
            )
            for number in range(VISITORS)
        ]

        async def all_of_them() -> None:
            await asyncio.gather(*(visitors.visit(server.url, plan, tally) for plan in plans))

        asyncio.run(all_of_them())
        files, megabytes = server.disk()
    assert tally.lost == []
    # Ten things are done in each round, and the page is opened.
    assert tally.answered == VISITORS * ROUNDS * 11
    assert len(tally.seconds["range of an upload"]) == VISITORS * ROUNDS
    # Two small uploads a round, and nothing else that would stay; and when the page is closed, nothing at all.
    assert files == 2 * VISITORS * ROUNDS
    assert megabytes < 0.1
    assert server.disk()[0] == 0
    assert "Traceback" not in server.log.read_text(encoding="utf-8")


def test_a_visitor_notices_an_answer_that_is_not_its_own(visitors: ModuleType) -> None:
    mine, other = visitors.Picture(1, SIDE), visitors.Picture(2, SIDE)
    mine.check_png(mine.content)
    with pytest.raises(visitors.WrongAnswerError):
        mine.check_png(other.content)
    with pytest.raises(visitors.WrongAnswerError):
        mine.check("<img>", "upload 1, the original")
    assert not np.array_equal(mine.pixels, other.pixels)
    tally = visitors.Tally()
    tally.expect_same(("a", 1), "one")
    with pytest.raises(visitors.WrongAnswerError):
        tally.expect_same(("a", 1), "another")


def test_what_goes_wrong_is_counted_as_lost(visitors: ModuleType) -> None:
    tally = visitors.Tally()

    async def fail() -> None:
        raise visitors.WrongAnswerError("not mine")

    assert asyncio.run(tally.count("asking", "somebody", fail())) is None
    assert tally.answered == 0
    assert tally.lost == ["asking of somebody: WrongAnswerError: not mine"]
