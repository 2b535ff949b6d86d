"""The page is served to this machine alone, tells nobody, and is no interface for programs."""

import asyncio
import json
import os
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from latlas.app.charts import Atlas
from latlas.app.serving import Served, _sweeping, free_port
from latlas.app.upload_folder import UploadFolder
from latlas.base.errors import LatlasError, MissingExtraError, SettingError
from latlas.cli.main import app

pytest.importorskip("gradio", reason="the explorer needs gradio")


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        content: bytes = answer.read()
    return content


def test_the_page_answers_on_this_machine_without_telling_anybody(served: Served) -> None:
    assert served.url.startswith("http://127.0.0.1:")
    config = json.loads(_get(served.url + "config"))
    assert config["title"] == "latlas explorer"
    assert config["analytics_enabled"] is False
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    # What visitors upload can be read by this user alone.
    assert Path(os.environ["GRADIO_TEMP_DIR"]).stat().st_mode & 0o077 == 0
    # No function of the page is offered to programs.
    assert config["dependencies"]
    assert {each["api_visibility"] for each in config["dependencies"]} == {"private"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        _get(served.url + "gradio_api/info")
    assert refused.value.code == 404
    # Fonts are the system's own.
    assert b"fonts.googleapis" not in _get(served.url)
    assert b"url(http" not in _get(served.url + "theme.css")


def test_a_file_of_too_many_bytes_is_not_taken(served: Served) -> None:
    edge = "----edge"
    head = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    body = head.encode() + b"\x00" * 10_500_000 + f"\r\n--{edge}--\r\n".encode()
    request = urllib.request.Request(
        served.url + "gradio_api/upload", data=body, headers={"Content-Type": f"multipart/form-data; boundary={edge}"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code == 413


def test_what_is_no_longer_needed_is_let_go_again_and_again_even_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = iter(range(10_000))
    uploads = UploadFolder(tmp_path, most=100, lifetime=20.0, clock=lambda: float(next(clock)))
    path = Path(uploads.put(b"a picture"))
    monkeypatch.setattr("latlas.app.serving._SWEPT", 0.001)

    async def sweep_for_a_while() -> None:
        sweeping = asyncio.create_task(_sweeping(uploads, page=None))  # a page that has nothing to look at
        for _ in range(2000):
            await asyncio.sleep(0.005)
            if not path.exists():
                break
        sweeping.cancel()

    asyncio.run(sweep_for_a_while())
    assert not path.exists()
    assert "could not let go" in caplog.text


def test_a_port_that_is_taken_is_told_and_one_that_nobody_asked_for_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(SettingError, match=f"Port {taken} of 127.0.0.1 cannot be had"):
            free_port("127.0.0.1", taken)
        monkeypatch.setattr("latlas.app.serving.PORT", taken)
        assert free_port("127.0.0.1", None) not in (0, taken)
    assert free_port("127.0.0.1", 0) > 0


@pytest.mark.parametrize(("host", "port", "words"), [("127.0.0.1", 70_000, "0 to 65535"), ("not an address", 0, "no address")])
def test_nonsense_addresses_are_refused(host: str, port: int, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        free_port(host, port)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere/at/all"], "No model folder"),
        (["zoo:avatars-dcgan", "--data", "nothing"], "Unknown data set"),
        (["--port", "-3"], "0 to 65535"),
        (["zoo:avatars-dcgan", "--device", "toaster"], "Unknown device"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_served(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["explore", "--no-browser", *arguments])
    assert isinstance(result.exception, LatlasError)
    assert words in str(result.exception)
    assert "\n" not in str(result.exception)


def test_the_page_cannot_be_shared_through_another_server() -> None:
    result = CliRunner().invoke(app, ["explore", "--share"])
    assert result.exit_code == 2
    assert "No such option" in result.output


def test_without_gradio_the_extra_is_named(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = CliRunner().invoke(app, ["explore", "--no-browser"])
    assert isinstance(result.exception, MissingExtraError)
    assert "latlas[explore]" in str(result.exception)
