"""Progress: items pass unchanged, and every one of them is told."""

from collections.abc import Iterator

import pytest

from latlas.base.progress import silent, track


class Ear:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int, int | None]] = []

    def __call__(self, task: str, done: int, total: int | None, note: str = "") -> None:
        self.heard.append((task, done, total))


def test_items_pass_in_order_and_each_is_told_after_it_was_used() -> None:
    ear = Ear()
    seen = [(item, ear.heard[-1]) for item in track(["a", "b"], "reading", ear)]
    assert seen == [("a", ("reading", 0, 2)), ("b", ("reading", 1, 2))]
    assert ear.heard[-1] == ("reading", 2, 2)


def test_a_stream_of_unknown_length_has_no_total_unless_told() -> None:
    def stream() -> Iterator[int]:
        yield from range(3)

    unknown, told = Ear(), Ear()
    assert list(track(stream(), "t", unknown)) == list(track(stream(), "t", told, total=3)) == [0, 1, 2]
    assert {total for _, _, total in unknown.heard} == {None}
    assert {total for _, _, total in told.heard} == {3}


def test_nothing_to_do_is_told_too() -> None:
    ear = Ear()
    assert list(track([], "t", ear)) == []
    assert ear.heard == [("t", 0, 0)]


def test_silence_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    list(track([1, 2], "t", silent))
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
