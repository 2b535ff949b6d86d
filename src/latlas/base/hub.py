"""Artifacts on the Hugging Face Hub: a spec resolved to a folder of files, and a folder pushed.

What comes from there is JSON, safetensors, npy and parquet, checked against its own hashes by whoever loads it. Nothing that
could carry code is fetched or sent.
"""

import os
import re
import tempfile
from collections.abc import Callable
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol, runtime_checkable

from latlas._version import __version__
from latlas.base.artifacts import CARD, CONFIG, config_text, peek, read_config
from latlas.base.cards import FOLDER, with_license
from latlas.base.errors import ArtifactError, LatlasError, MissingExtraError, MissingPathError, SettingError

FILES = ("*.json", "*.safetensors", "*.npy", "*.parquet", CARD)  # what is fetched and sent

_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB_ID = re.compile(rf"(?P<repository>{_WORD}/{_WORD})(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]*))?")


class HubError(LatlasError):
    """The Hub could not be reached, or would not give or take what was asked."""


class HubId(NamedTuple):
    """A repository of the Hub, and a branch, tag or commit of it."""

    repository: str
    revision: str | None = None


@runtime_checkable
class Saveable(Protocol):
    """What writes itself as an artifact folder."""

    def save_pretrained(self, folder: str | Path, *, replace: bool = False) -> None: ...  # noqa: D102


class Pushable:
    """Gives what has `save_pretrained` a `push_to_hub`."""

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        license: str | None = None,  # noqa: A002  # the Hub's own word
    ) -> str:
        """Write this as an artifact and push it, as `latlas.base.hub.push_to_hub`; return its address."""
        if not isinstance(self, Saveable):
            raise TypeError(f"{type(self).__name__} has no save_pretrained.")
        return push_to_hub(self, repository, private=private, token=token, revision=revision, license=license)


def hub_id(spec: str) -> HubId | None:
    """Return what `owner/name` or `owner/name@revision` names; None where a spec is written otherwise.

    >>> hub_id("ada/digits@v1")
    HubId(repository='ada/digits', revision='v1')
    >>> hub_id("../digits"), hub_id("runs/a/b"), hub_id("ada/digits@../x")
    (None, None, None)
    """
    match = _HUB_ID.fullmatch(spec)
    return None if match is None or ".." in spec else HubId(match["repository"], match["revision"])


def resolve(spec: str | Path, *, token: str | None = None) -> Path:
    """Return the folder that a spec names: one on this machine, else the artifact of that Hub id, fetched or from its cache.

    A path that exists is never looked for on the Hub, nor is one in a folder that exists (a slip in its name stays on this
    machine), nor a `Path`. Whether a folder lies there and what it holds is for the reader to check.

    Args:
        spec: a folder, or `owner/name` with or without `@revision`.
        token: of the Hub; None for the one that this machine is logged in with, if any.

    Raises:
        MissingExtraError: a Hub id, and no huggingface-hub.
        MissingPathError: neither a folder here nor such a repository there.
        HubError: the Hub could not be reached, and its cache does not hold it; or it refused.
        ArtifactError: the repository holds no latlas artifact, or one with files that latlas never fetches.
    """
    path = Path(spec)
    named = hub_id(spec) if isinstance(spec, str) else None
    if named is None or os.path.lexists(path) or os.path.isdir(path.parent):  # noqa: PTH112  # a Path raises where no folder could have that name
        return path
    return _fetch(named, token)


def push_to_hub(
    artifact: str | Path | Saveable,
    repository: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    license: str | None = None,  # noqa: A002  # the Hub's own word
) -> str:
    """Push an artifact to the Hub in one commit; return its address there.

    Its data files, `config.json` and card are sent; pages, pictures and logs beside them are not. Files of other names in the
    repository stay.

    Args:
        artifact: a folder that latlas wrote, or what has `save_pretrained`.
        repository: `owner/name`; made if there is none.
        private: whether a new repository is; None for what the owner's account says. An old one stays as it is.
        token: of the Hub, with the right to write; None for the one that this machine is logged in with.
        revision: the branch, made if there is none; None for `main`.
        license: for the card, as the Hub names it, for example "cc0-1.0"; None leaves the card as it is.

    Raises:
        MissingPathError, ArtifactError: no artifact there, or a damaged one.
        SettingError: a repository that is not written `owner/name`.
        MissingExtraError: no huggingface-hub.
        HubError: the Hub could not be reached, or refused.
    """
    named = hub_id(repository)
    if named is None or named.revision is not None:
        raise SettingError(f"A repository of the Hub is written owner/name, got {repository!r}. Give a branch as revision.")
    if not isinstance(artifact, str | Path):
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / "artifact"
            artifact.save_pretrained(folder)
            return push_to_hub(folder, repository, private=private, token=token, revision=revision, license=license)
    content = _to_send(Path(artifact), repository if revision is None else f"{repository}@{revision}", license)
    hub = _huggingface_hub()
    api = hub.HfApi(library_name="latlas", library_version=__version__, token=token)
    additions = [hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=what) for name, what in content.items()]

    def push() -> str:
        api.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        api.create_commit(repository, additions, commit_message=f"Push a latlas {_kind(Path(artifact))}", revision=revision)
        return f"{api.endpoint}/{repository}" + ("" if revision is None else f"/tree/{revision}")

    return _asking(push, f"push to {repository}", "Log in with `hf auth login` or give a token with the right to write.")


def _fetch(named: HubId, token: str | None) -> Path:
    hub = _huggingface_hub(f"No folder {named.repository} here; to look for it on the Hub, ")
    told = named.repository if named.revision is None else f"{named.repository}@{named.revision}"

    def fetch(revision: str | None, names: list[str]) -> Path:
        return _asking(
            lambda: Path(
                hub.snapshot_download(
                    named.repository,
                    revision=revision,
                    allow_patterns=[escape(name) for name in names],
                    token=token,
                    library_name="latlas",
                    library_version=__version__,
                )
            ),
            f"fetch {told}, which is no folder here",
            "Check the name; for what is private, log in with `hf auth login` or set HF_TOKEN. "
            "A folder on this machine is written with its whole path.",
        )

    # First the config alone: a repository of something else may hold gigabytes.
    folder = fetch(named.revision, [CONFIG])
    record = peek(folder)
    if record is None:
        raise ArtifactError(
            f"{told} on the Hub is not a latlas artifact: it has no {CONFIG} that latlas wrote. "
            "The autoencoder of a diffusion model is named diffusers:owner/name."
        )
    names = list(record["files"])
    for name in names:
        _check_name(name, told)
    return fetch(folder.name, [CONFIG, CARD, *names])  # a snapshot's folder is called as its commit


def _check_name(name: str, repository: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise ArtifactError(f"{repository} on the Hub lists {name!r}, which lies outside the artifact. Do not use it.")
    if not _may_travel(name):
        raise ArtifactError(
            f"{repository} on the Hub lists {name!r}, and latlas fetches nothing but {', '.join(FILES)}. "
            "Push the artifact with latlas, which leaves such files out."
        )


def _may_travel(name: str) -> bool:
    return any(fnmatchcase(PurePosixPath(name).name, pattern) for pattern in FILES)


def _to_send(folder: Path, told: str, license: str | None) -> dict[str, bytes | str]:  # noqa: A002
    """Return what a push sends, by its name there: bytes, or the path of a file."""
    record = read_config(folder, kind=_kind(folder))
    names = [name for name in record["files"] if _may_travel(name)]
    # A reader asks for every file that the config lists: it may list no other than those that are sent.
    listed = record | {"files": {name: record["files"][name] for name in names}}
    content: dict[str, bytes | str] = {name: str(folder / name) for name in names}
    content[CONFIG] = config_text(listed).encode()
    if (folder / CARD).is_file():
        _check_card(folder)
        card = (folder / CARD).read_text(encoding="utf-8").replace(FOLDER, told)
        content[CARD] = (card if license is None else with_license(card, license)).encode()
    return content


def _check_card(folder: Path) -> None:
    """Raise if an artifact's card is a link out of it: whoever made the artifact would choose what file of this machine is published.

    The cache of the Hub keeps files aside, within the repository's folder, and has links to them.

    Raises:
        ArtifactError: it is.
    """
    within = folder.resolve()
    if within.parent.name == "snapshots":
        within = within.parent.parent
    if not (folder / CARD).resolve().is_relative_to(within):
        raise ArtifactError(f"{folder / CARD} is a link out of the artifact. Nothing was pushed: put a card of its own there.")


def _kind(folder: Path) -> str:
    record = peek(folder)
    if record is None and folder.is_dir():
        raise ArtifactError(f"{folder} is not a latlas artifact: it has no {CONFIG} that latlas wrote. Nothing was pushed.")
    if record is None:
        raise MissingPathError(f"No folder {folder} to push: write the artifact first, with --out or save_pretrained.")
    return str(record["kind"])


def _asking(ask: Callable[[], Any], what: str, cure: str) -> Any:
    """Return the answer to a request of the Hub, whose many ways to fail come out as two.

    Raises:
        MissingPathError: no such repository or revision, or none that may be seen.
        HubError: everything else.
    """
    hub = _huggingface_hub()
    try:
        return ask()
    except hub.errors.RevisionNotFoundError as failure:
        raise MissingPathError(f"Could not {what}: the Hub has no such branch, tag or commit of it.") from failure
    except hub.errors.RepositoryNotFoundError as failure:
        raise MissingPathError(f"Could not {what}: the Hub shows you no such repository. {cure}") from failure
    except hub.errors.LocalEntryNotFoundError as failure:
        raise HubError(
            f"Could not {what}: the Hub cannot be asked ({_reason(failure.__cause__ or failure)}), and its cache does not hold it."
        ) from failure
    except Exception as failure:  # the client's own errors, its HTTP library's, and the system's
        raise HubError(f"Could not {what}: {_reason(failure)}. {cure}") from failure


def _reason(failure: BaseException) -> str:
    text = " ".join(str(failure).split())
    return f"{type(failure).__name__}: {text[:200]}" if text else type(failure).__name__


def _huggingface_hub(why: str = "") -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as failure:
        raise MissingExtraError(
            f"{why or 'The Hub needs the package huggingface-hub, which is not installed: '}install it with pip install 'latlas[hub]'."
        ) from failure
    return huggingface_hub
