"""Serving the page: on this machine unless told otherwise, telling nobody, and with no way to share it through another."""

import atexit
import ipaddress
import os
import shutil
import socket
import tempfile
from dataclasses import dataclass
from typing import Any

from latlas.app.charts import Atlas
from latlas.app.page import build_page, style, theme
from latlas.app.uploads import MOST_BYTES
from latlas.base.errors import SettingError

HOST, PORT = "127.0.0.1", 7860
_VISITORS = 100  # whose codes and pictures are in memory at once


@dataclass(frozen=True, kw_only=True, eq=False)
class Served:
    """A page that answers."""

    url: str
    page: Any

    def wait(self) -> None:
        """Return when the process is interrupted; the page is closed then."""
        self.page.block_thread()

    def close(self) -> None:
        """Stop answering."""
        self.page.close(verbose=False)


def serve(atlas: Atlas, *, host: str = HOST, port: int | None = None, browser: bool = False) -> Served:
    """Serve the explorer and return at once.

    Args:
        atlas: what there is to look at.
        host: the address to listen at. Whoever reaches it can use the page.
        port: 0 for any free one; None for 7860, or a free one where that is taken.
        browser: whether to open the page in the user's browser.

    Raises:
        MissingExtraError: gradio is not installed.
        SettingError: no such address here, or a port that is out of range or taken.
    """
    chosen = free_port(host, port)
    # Read by gradio when it is imported, and later.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # What visitors upload lies in a folder that only this user can read, and that goes with the process.
    folder = tempfile.mkdtemp(prefix="latlas-explorer-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = folder
    page = build_page(atlas)
    page.queue(default_concurrency_limit=4)
    try:
        page.launch(
            server_name=host,
            server_port=chosen,
            inbrowser=browser,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            show_error=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            run_history=False,
            footer_links=[],
            max_file_size=MOST_BYTES,
            state_session_capacity=_VISITORS,
            theme=theme(),
            css=style(),
        )
    except OSError as failure:  # taken between looking and listening
        raise SettingError(f"The page cannot be served at {host}:{chosen} ({failure}). Give another --port, or 0.") from failure
    name = f"[{host}]" if ":" in host else host
    return Served(url=f"http://{name}:{chosen}/", page=page)


def free_port(host: str, port: int | None) -> int:
    """Return a port that can be listened at.

    Raises:
        SettingError: no such address here, or a port that is out of range or taken.
    """
    if port is not None and not 0 <= port <= 65535:
        raise SettingError(f"A port is a number from 0 to 65535, got {port}.")
    for wanted in (PORT, 0) if port is None else (port,):
        try:
            family, *_, address = socket.getaddrinfo(host, wanted, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                return int(probe.getsockname()[1])
        except socket.gaierror as failure:
            raise SettingError(f"{host} is no address of this machine. Give --host 127.0.0.1, or 0.0.0.0 for all.") from failure
        except OSError as failure:
            if port is not None:
                raise SettingError(
                    f"Port {port} of {host} cannot be had ({failure.strerror}). Give another, or 0 for a free one."
                ) from failure
    raise SettingError(f"{host} has no free port. Give another --host.")


def is_local(host: str) -> bool:
    """Tell whether only this machine can reach an address.

    >>> is_local("127.0.0.1"), is_local("localhost"), is_local("::1"), is_local("0.0.0.0")
    (True, True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
