"""The Hub: real client, real HTTP, and a small server on this machine in its place."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from latlas.base.artifacts import CARD, CONFIG, read_config, writing
from latlas.base.errors import ArtifactError, MissingExtraError, MissingPathError, SettingError
from latlas.base.hub import HubError, HubId, hub_id, push_to_hub, resolve
from latlas.base.provenance import Provenance
from latlas.encodings.encoding import Encoding
from latlas.models.architectures.registry import architecture
from latlas.models.vae import VAE
from latlas.samplers.fit import fit_sampler, load_sampler

TOKEN = "hf_may_write"


class FakeHub(ThreadingHTTPServer):
    """Repositories in memory, by the endpoints that huggingface_hub calls."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, dict[str, dict[str, bytes]]] = {}  # repository -> branch -> name -> content
        self.asked: dict[str, dict[str, Any]] = {}  # what a new repository was asked for with
        self.log: list[tuple[str, str]] = []
        self.cards: list[str] = []  # the front matter that was sent to be validated
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, repository: str, **content: bytes) -> None:
        self.files.setdefault(repository, {}).setdefault("main", {}).update(content)

    def fetched(self) -> set[str]:
        return {path.rsplit("/", 1)[1] for method, path in self.log if method == "GET" and "/resolve/" in path}


def _sha(files: dict[str, bytes]) -> str:
    return hashlib.sha1(b"".join(name.encode() + content for name, content in sorted(files.items()))).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, record: Any = None, *, content: bytes | None = None, **headers: str) -> None:
        body = json.dumps(record).encode() if content is None else content
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def at(self, repository: str, revision: str) -> dict[str, bytes] | None:
        branches = self.server.files.get(repository)
        if branches is None:
            self.answer(401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return None
        found = branches.get(revision) or next((files for files in branches.values() if _sha(files) == revision), None)
        if found is None:
            self.answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
        return found

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.log.append((self.command, path))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            files = self.at(match[1], match[2] or "main")
            if files is not None:
                self.answer(200, {"id": match[1], "sha": _sha(files), "siblings": [{"rfilename": name} for name in files]})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)/?", path):
            files = self.at(match[1], match[2])
            if files is not None:
                tree = [{"type": "file", "path": n, "size": len(c), "oid": _sha({n: c})} for n, c in files.items()]
                self.answer(200, tree)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            files = self.at(match[1], match[2])
            if files is not None and match[3] in files:
                content = files[match[3]]
                tag = f'"{_sha({match[3]: content})}"'
                self.answer(200, content=content, ETag=tag, X_Repo_Commit=_sha(files))
            elif files is not None:
                self.answer(404, {"error": "no such file"}, X_Error_Code="EntryNotFound")
        else:
            self.answer(404, {"error": "no such page"})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.log.append((self.command, path))
        body = (
            self.rfile.read(int(self.headers.get("Content-Length") or 0)) if "Content-Length" in self.headers else self.chunks()
        )
        if path == "/api/validate-yaml":
            self.server.cards.append(json.loads(body)["content"])
            self.answer(200, {"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            record = json.loads(body)
            name = f"{record['organization']}/{record['name']}"
            known = name in self.server.files
            self.server.asked.setdefault(name, record)
            self.server.files.setdefault(name, {}).setdefault("main", {})
            self.answer(409 if known else 200, {"url": f"{self.server.address}/{name}"})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/branch/(.+)", path):
            branches = self.server.files[match[1]]
            known = match[2] in branches
            branches.setdefault(match[2], dict(branches["main"]))
            self.answer(409 if known else 200, {})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/(.+)", path):
            names = [file["path"] for file in json.loads(body)["files"]]
            self.answer(200, {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path):
            branch = self.server.files[match[1]][match[2]]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    branch[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"{self.server.address}/{match[1]}/commit/{_sha(branch)}"
            self.answer(200, {"commitUrl": url, "commitOid": _sha(branch), "pullRequestUrl": None})
        else:
            self.answer(404, {"error": "no such page"})

    def chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    server = FakeHub()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield server
    server.shutdown()
    server.server_close()


def model(seed: int = 0) -> VAE:
    torch.manual_seed(seed)
    return VAE(architecture("dense", widths=(8,), latent=2), (1, 4, 4), name="digits")


# Names


@pytest.mark.parametrize(
    ("spec", "meant"),
    [
        ("ada/digits", HubId("ada/digits")),
        ("ada/digits@v1.0", HubId("ada/digits", "v1.0")),
        ("ada-l/my_model.2@refs/pr/1", HubId("ada-l/my_model.2", "refs/pr/1")),
        *[(other, None) for other in ("digits", "", "/a/b", "a/b/c", "./a", "../a", "a/..", "~/a", "a//b", "a/b@", "a/b@../x")],
        *[
            (other, None)
            for other in ("a/b@x/../y", "a/b..c", "a\\b/c", "a/b c", "a/b\n", "https://huggingface.co/a/b", "mnist:test")
        ],
    ],
)
def test_a_hub_id_is_owner_and_name_and_nothing_else(spec: str, meant: HubId | None) -> None:
    assert hub_id(spec) == meant


@given(st.text(alphabet="ab./@\\~-_: %\n\0é", max_size=20))
def test_no_text_is_a_hub_id_that_leads_out_of_a_folder(spec: str) -> None:
    named = hub_id(spec)
    if named is not None:
        assert named.repository.count("/") == 1
        assert not {"", ".", ".."} & set(named.repository.split("/"))
        assert ".." not in spec
        assert spec.isascii()
        assert spec.isprintable()


# There and back


def test_a_pushed_model_comes_back_by_its_hub_id(hub: FakeHub) -> None:
    there = model().push_to_hub("ada/digits", token=TOKEN)
    assert there == f"{hub.address}/ada/digits"
    assert VAE.from_pretrained("ada/digits").fingerprint == model().fingerprint


def test_a_folder_is_pushed_as_it_lies(hub: FakeHub, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(50, 2, generator=generator)
    encoding = Encoding(
        mean=codes, log_variance=None, model="digits", images="mnist", images_hash="ab", provenance=Provenance(made_by="encode")
    )
    sampler = fit_sampler("moments", encoding)
    sampler.save_pretrained(tmp_path / "sampler")
    push_to_hub(tmp_path / "sampler", "ada/sampler", token=TOKEN)
    sent = hub.files["ada/sampler"]["main"]
    assert {name for name in sent if name not in (CONFIG, CARD)} == {"sampler.safetensors"}
    assert sent["sampler.safetensors"] == (tmp_path / "sampler" / "sampler.safetensors").read_bytes()
    same = [each.sample(5, torch.Generator().manual_seed(1)) for each in (sampler, load_sampler("ada/sampler"))]
    assert same[0].equal(same[1])


def test_logs_and_pages_stay_here_and_the_artifact_is_whole_there(hub: FakeHub, tmp_path: Path) -> None:
    with writing(tmp_path / "model") as beside:
        (beside / "run").mkdir()
        (beside / "run" / "events.out.tfevents.1").write_bytes(b"log")
        (beside / "run" / "history.json").write_text("[]")
        (beside / "report.html").write_text("<p>")
        (beside / "extra.pkl").write_bytes(b"\x80")
        model().write_files(beside)
    push_to_hub(tmp_path / "model", "ada/digits", token=TOKEN)
    assert set(hub.files["ada/digits"]["main"]) == {CONFIG, CARD, "model.safetensors", "run/history.json"}
    path = resolve("ada/digits")
    assert VAE.from_pretrained(path).fingerprint == model().fingerprint
    assert set(read_config(path, kind="vae")["files"]) == {"model.safetensors", "run/history.json"}
    assert set(read_config(tmp_path / "model", kind="vae")["files"]) > {"extra.pkl"}  # the folder itself is as it was


def test_the_card_names_its_place_on_the_hub_and_parses_there(hub: FakeHub) -> None:
    model().push_to_hub("ada/digits", token=TOKEN, revision="trial", license="cc0-1.0")
    text = hub.files["ada/digits"]["trial"][CARD].decode()
    assert 'latlas.load_model("ada/digits@trial")' in text
    assert "path/to" not in text
    found = huggingface_hub.ModelCard(text).data
    assert (found.library_name, found.license, found.tags) == ("latlas", "cc0-1.0", ["latlas", "vae", "dense"])
    assert [yaml.safe_load(card.split("---")[1])["library_name"] for card in hub.cards] == ["latlas"]


@pytest.mark.parametrize("private", [True, False, None])
def test_a_new_repository_is_as_private_as_was_asked(hub: FakeHub, private: bool | None) -> None:
    model().push_to_hub("ada/digits", token=TOKEN, private=private)
    asked = hub.asked["ada/digits"]
    told = {"private": True, "public": False, None: asked.get("private")}[
        asked.get("visibility")
    ]  # as the client's version says it
    assert told == private


def test_a_second_push_replaces_the_first_and_a_branch_keeps_its_own(hub: FakeHub) -> None:
    model().push_to_hub("ada/digits", token=TOKEN)
    model(1).push_to_hub("ada/digits", token=TOKEN, revision="trial")
    assert VAE.from_pretrained("ada/digits").fingerprint == model().fingerprint
    assert VAE.from_pretrained("ada/digits@trial").fingerprint == model(1).fingerprint
    model(2).push_to_hub("ada/digits", token=TOKEN)
    assert VAE.from_pretrained("ada/digits").fingerprint == model(2).fingerprint


def test_in_a_process_of_its_own_the_environment_decides(hub: FakeHub, tmp_path: Path) -> None:
    model().push_to_hub("ada/digits", token=TOKEN)
    code = "from latlas.models.vae import VAE; print(VAE.from_pretrained('ada/digits').fingerprint)"
    environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == model().fingerprint


# What is asked of the Hub, and what never is


def test_what_lies_here_is_not_asked_of_the_hub(hub: FakeHub) -> None:
    hub.put("ada/digits", **{CONFIG: b"{}"})
    model().save_pretrained("ada/digits")
    assert resolve("ada/digits") == Path("ada/digits")
    assert resolve("ada/digit") == Path("ada/digit")  # a slip in a name beside it
    assert resolve(Path("grace/digits")) == Path("grace/digits")  # a path is a path
    assert resolve("runs/a/b") == Path("runs/a/b")
    with pytest.raises(MissingPathError, match="No folder ada/digit: expected a latlas vae there"):
        VAE.from_pretrained("ada/digit")
    assert hub.log == []


def test_of_something_else_nothing_but_the_config_is_fetched(hub: FakeHub) -> None:
    hub.put("stable/diffusion", **{CONFIG: b'{"_class_name": "AutoencoderKL"}', "model.safetensors": b"gigabytes"})
    with pytest.raises(
        ArtifactError, match=r"stable/diffusion on the Hub is not a latlas artifact.*named diffusers:owner/name"
    ):
        resolve("stable/diffusion")
    hub.put("some/text", **{"model.safetensors": b"gigabytes"})
    with pytest.raises(ArtifactError, match="some/text on the Hub is not a latlas artifact"):
        resolve("some/text")
    assert hub.fetched() == {CONFIG}


def test_nothing_beside_the_artifact_is_fetched(hub: FakeHub) -> None:
    model().push_to_hub("ada/digits", token=TOKEN)
    hub.put("ada/digits", **{"pytorch_model.bin": b"\x80", "other.safetensors": b"", "setup.py": b"import os"})
    folder = resolve("ada/digits")
    assert hub.fetched() == {CONFIG, CARD, "model.safetensors"}
    assert {path.name for path in folder.iterdir()} == {CONFIG, CARD, "model.safetensors"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("weights.pkl", r"lists 'weights.pkl', and latlas fetches nothing but \*.json"),
        ("run/events.out.tfevents.1", "latlas fetches nothing but"),
        ("../evil.json", "lists '../evil.json', which lies outside the artifact"),
        ("/etc/evil.json", "lies outside the artifact"),
        ("a/../../evil.json", "lies outside the artifact"),
        ("..\\evil.json", "lies outside the artifact"),
        ("C:evil.json", "lies outside the artifact"),
    ],
)
def test_an_artifact_that_lists_what_it_should_not_is_refused_before_it_is_fetched(hub: FakeHub, name: str, words: str) -> None:
    model().push_to_hub("ada/digits", token=TOKEN)
    record = json.loads(hub.files["ada/digits"]["main"][CONFIG])
    record["files"][name] = "0" * 64
    hub.put("ada/digits", **{CONFIG: json.dumps(record).encode(), name: b"evil"})
    with pytest.raises(ArtifactError, match=words):
        resolve("ada/digits")
    assert hub.fetched() == {CONFIG}


def test_weights_that_were_changed_there_are_noticed_here(hub: FakeHub) -> None:
    model().push_to_hub("ada/digits", token=TOKEN)
    content = bytearray(hub.files["ada/digits"]["main"]["model.safetensors"])
    content[-1] ^= 1
    hub.put("ada/digits", **{"model.safetensors": bytes(content)})
    with pytest.raises(ArtifactError, match="is damaged"):
        VAE.from_pretrained("ada/digits")


# What goes wrong


def test_an_unknown_repository_or_revision_is_told_in_one_line(hub: FakeHub) -> None:
    with pytest.raises(MissingPathError, match="fetch ada/nothing, which is no folder here: the Hub shows you no such") as told:
        resolve("ada/nothing")
    assert "hf auth login" in str(told.value)
    model().push_to_hub("ada/digits", token=TOKEN)
    with pytest.raises(
        MissingPathError, match=r"Could not fetch ada/digits@v9, .*: the Hub has no such branch, tag or commit"
    ) as told:
        resolve("ada/digits@v9")
    assert "\n" not in str(told.value)


def test_without_a_network_the_cache_answers_and_what_it_lacks_is_one_clear_error(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    model().push_to_hub("ada/digits", token=TOKEN)
    VAE.from_pretrained("ada/digits")
    hub.shutdown()
    hub.server_close()
    assert VAE.from_pretrained("ada/digits").fingerprint == model().fingerprint
    with pytest.raises(HubError, match=r"the Hub cannot be asked \(Connect.*, and its cache does not hold it") as told:
        resolve("ada/other")
    assert "\n" not in str(told.value)
    with pytest.raises(HubError, match="Could not push to ada/digits: Connect"):
        model().push_to_hub("ada/digits", token=TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert VAE.from_pretrained("ada/digits").fingerprint == model().fingerprint
    with pytest.raises(HubError, match=r"the Hub cannot be asked .*Offline"):
        resolve("ada/other")


def test_a_half_fetched_artifact_is_not_taken_for_a_whole_one(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    model().push_to_hub("ada/digits", token=TOKEN)
    (resolve("ada/digits") / "model.safetensors").unlink()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    # Older clients answer with what they have, and the artifact's own list tells.
    with pytest.raises(
        (HubError, ArtifactError), match=r"Could not fetch ada/digits, which is no folder here|model\.safetensors is missing"
    ):
        VAE.from_pretrained("ada/digits")


@pytest.mark.parametrize("token", [None, "hf_wrong"])
def test_without_the_right_to_write_nothing_is_pushed(hub: FakeHub, token: str | None) -> None:
    with pytest.raises(
        (HubError, MissingPathError), match=r"Could not push to ada/digits: .*hf auth login.*right to write"
    ) as told:
        model().push_to_hub("ada/digits", token=token)
    assert "\n" not in str(told.value)
    assert hub.files == {}


@pytest.mark.parametrize("name", ["digits", "ada/digits/a", "ada/digits@v1", "../digits", "https://huggingface.co/ada/digits"])
def test_a_repository_is_written_owner_and_name(hub: FakeHub, name: str) -> None:
    with pytest.raises(SettingError, match="is written owner/name"):
        model().push_to_hub(name, token=TOKEN)
    assert hub.log == []


def test_what_is_no_sound_artifact_is_not_pushed(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"No folder .*nowhere to push"):
        push_to_hub(tmp_path / "nowhere", "ada/digits", token=TOKEN)
    with pytest.raises(ArtifactError, match=r"is not a latlas artifact.*Nothing was pushed"):
        push_to_hub(tmp_path, "ada/digits", token=TOKEN)
    model().save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ArtifactError, match="is damaged"):
        push_to_hub(tmp_path / "model", "ada/digits", token=TOKEN)
    assert hub.log == []


def test_without_the_package_a_hub_id_says_what_installs_it(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"No folder ada/digits here; .*pip install 'latlas\[hub\]'"):
        resolve("ada/digits")
    with pytest.raises(MissingExtraError, match=r"pip install 'latlas\[hub\]'"):
        model().push_to_hub("ada/digits", token=TOKEN)
    assert resolve("digits") == Path("digits")  # what is no Hub id needs no package
