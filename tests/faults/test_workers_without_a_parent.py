"""A process that is killed takes its workers with it, and what it held is free at once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from latlas.base.locking import FolderLock

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are counted in /proc")


def children(parent: int) -> set[int]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.add(int(path.parent.name))
    return found


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(what: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.05)
    return what()


def killed_with_workers(code: str, folder: Path, workers: int) -> set[int]:
    """Run a script until so many of its workers are at work, kill it, and return them."""
    (folder / "script.py").write_text(code)
    environment = {**os.environ, "LATLAS_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(folder / "script.py")], env=environment, cwd=folder)
    try:
        assert wait_for(lambda: len(children(process.pid)) >= workers, 60)
        assert wait_for(lambda: (folder / "at-work").exists(), 60)
        return children(process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_the_processes_that_draw_avatars_end_with_the_one_that_was_killed(tmp_path: Path) -> None:
    pytest.importorskip("dicebear")
    code = """
from pathlib import Path
from latlas.data.avatars import avatar_settings, load_avatars
if __name__ == "__main__":
    told = lambda task, done, total, note="": done and Path("at-work").touch()
    load_avatars(avatar_settings("avatars:train?count=200000,size=16"), workers=2, progress=told)
"""
    workers = killed_with_workers(code, tmp_path, 3)  # with multiprocessing's own, which counts what they share
    try:
        assert wait_for(lambda: not any(map(lives, workers)), 30), "they would wait for work for ever"
    finally:
        for worker in filter(lives, workers):
            os.kill(worker, signal.SIGKILL)


def test_an_encoding_whose_process_was_killed_can_be_gone_on_with_at_once(tmp_path: Path) -> None:
    """Its workers look for it every five seconds; till then they held what it held."""
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    for number in range(2000):
        Image.new("L", (4, 4), number % 256).save(tmp_path / "pictures" / f"{number}.png")
    code = """
import time
from pathlib import Path
import torch
from latlas.data.loading import open_images
from latlas.encodings.encode import encode
from latlas.models.architectures.dense import Dense
from latlas.models.vae import VAE

class Slow(VAE):
    def encode(self, images):
        Path("at-work").touch()
        time.sleep(60)
        return super().encode(images)

if __name__ == "__main__":
    torch.set_num_threads(1)
    encode(Slow(Dense(widths=(4,), latent=2), (1, 4, 4)), open_images("pictures", workers=2), out="out")
"""
    workers = killed_with_workers(code, tmp_path, 2)
    assert any(map(lives, workers)), "else there is nothing to show"
    FolderLock(tmp_path / ".out.encoding").release()
    assert wait_for(lambda: not any(map(lives, workers)), 30)
