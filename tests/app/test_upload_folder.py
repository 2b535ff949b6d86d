"""Visitors' pictures lie under names of the server's own, in bounded room, for a bounded time."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from latlas.app.upload_folder import UploadFolder


@dataclass
class Clock:
    """A clock that stands still."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path, clock: Clock) -> UploadFolder:
    return UploadFolder(tmp_path, most=100, lifetime=600.0, clock=clock)


def _on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_a_path_is_drawn_by_chance_and_only_the_very_path_is_known(folder: UploadFolder, tmp_path: Path) -> None:
    first, second = folder.put(b"one"), folder.put(b"one")
    assert first != second  # the content does not lead to the path
    assert {Path(first).parent, Path(second).parent} == {tmp_path}
    assert Path(first).read_bytes() == b"one"
    assert Path(first).stat().st_mode & 0o077 == 0
    assert folder.size(first) == 3
    name = Path(first).name
    for other in (name, f"{tmp_path}/./{name}", f"{tmp_path}/x/../{name}", f"{first}/", "", str(tmp_path), "/etc/passwd"):
        assert folder.size(other) is None


def test_a_link_or_a_file_that_lies_in_the_folder_but_was_not_put_there_is_not_known(
    folder: UploadFolder, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "file").write_bytes(b"x")
    assert folder.size(str(tmp_path / "link")) is None
    assert folder.size(str(tmp_path / "file")) is None


def test_a_picture_is_forgotten_after_its_time(tmp_path: Path, clock: Clock) -> None:
    told: list[str] = []
    folder = UploadFolder(tmp_path, most=100, lifetime=600.0, forgotten=told.append, clock=clock)
    old = folder.put(b"old")
    clock.now = 300.0
    young = folder.put(b"young")
    clock.now = 599.0
    folder.sweep()
    assert folder.size(old) == 3
    clock.now = 600.0
    folder.sweep()
    assert folder.size(old) is None
    assert not Path(old).exists()
    assert told == [old]
    assert folder.size(young) == 5


def test_there_is_never_more_than_the_bound_and_what_just_came_makes_no_room(
    folder: UploadFolder, tmp_path: Path, clock: Clock
) -> None:
    assert folder.reserve(60)
    assert not folder.reserve(50)  # the first is still on its way
    first = folder.put(b"x" * 60)
    folder.release(60)
    assert not folder.reserve(50)  # the first may not have been read yet
    clock.now = 61.0
    assert folder.reserve(50)
    assert folder.size(first) is None
    assert _on_disk(tmp_path) == 0
    assert not folder.reserve(101)


def test_many_uploads_stay_within_the_bound(folder: UploadFolder, tmp_path: Path, clock: Clock) -> None:
    taken = 0
    for place in range(400):
        clock.now = float(place)
        if folder.reserve(7):
            folder.put(bytes(7))
            folder.release(7)
            taken += 1
        assert _on_disk(tmp_path) <= 100
    assert taken > 60  # room comes back as pictures grow old


def test_of_very_small_pictures_there_are_not_very_many(tmp_path: Path, clock: Clock) -> None:
    folder = UploadFolder(tmp_path, most=1_000_000, lifetime=600.0, clock=clock)  # a hundred bytes for each of ten thousand
    while folder.reserve(1):
        for _ in range(1000):
            folder.put(b"x")
        folder.release(1)
    assert len(list(tmp_path.iterdir())) == 10_000


def test_a_file_that_somebody_else_has_removed_is_forgotten_without_a_word(folder: UploadFolder, clock: Clock) -> None:
    path = folder.put(b"gone")
    Path(path).unlink()
    clock.now = 1e6
    folder.sweep()
    assert folder.size(path) is None
