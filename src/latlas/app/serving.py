"""Serving the page: on this machine unless told otherwise, telling nobody, and with no way to share it through another."""

import asyncio
import atexit
import functools
import ipaddress
import logging
import os
import re
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latlas.app.charts import Atlas
from latlas.app.guard import Guard
from latlas.app.page import FORGOTTEN, build_page, style, theme
from latlas.app.upload_folder import UploadFolder
from latlas.app.uploads import MOST_BYTES
from latlas.base.errors import SettingError
from latlas.base.heap import give_back_memory, of_c_library

HOST, PORT = "127.0.0.1", 7860
_VISITORS = 40  # whose codes and controls are in memory at once, about 1 MB each
_WAITING = 200  # questions that wait for their turn; the next is told to come again
_MOST_KEPT = 500_000_000  # bytes of visitors' pictures on disk
_SWEPT = 10.0  # seconds between two looks at what can be forgotten
_MOST_HEAPS = -8  # glibc's M_ARENA_MAX
_NAME = re.compile(r"[\w-]+(\.[\w-]+)*", re.ASCII)  # or the digits of an IPv4 address
_LONG = 10_000  # characters that are pictures in a page, and no control's value

_LOG = logging.getLogger(__name__)


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


def serve(
    atlas: Atlas, *, host: str = HOST, port: int | None = None, names: Sequence[str] = (), browser: bool = False
) -> Served:
    """Serve the explorer and return at once.

    Args:
        atlas: what there is to look at.
        host: the address to listen at. Whoever reaches it can use the page.
        port: 0 for any free one; None for 7860, or a free one where that is taken.
        names: other names that the page is called by, as behind a proxy that keeps them: `lab.example.org`. Where some are given, or the
            address is this machine's alone, a request under any other name is refused.
        browser: whether to open the page in the user's browser.

    Raises:
        MissingExtraError: gradio is not installed.
        SettingError: no such address here, a port that is out of range or taken, or a name that is none.
    """
    is_own_name = own_names(host, names)
    chosen = free_port(host, port)
    _share_heaps()
    # Read by gradio when it is imported, and later.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # After every question gradio makes a table of the last ten thousand, for a page of figures that is never shown.
    os.environ |= {"GRADIO_ANALYTICS_MAX_EVENTS": "1", "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(10**9)}
    # What visitors upload lies in a folder that only this user can read, and that goes with the process.
    folder = tempfile.mkdtemp(prefix="latlas-explorer-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = folder
    page = build_page(atlas)
    page.queue(default_concurrency_limit=4, max_size=_WAITING)

    def forgotten(path: str) -> None:  # gradio notes what it has read, and would note it for ever
        for noted in page.temp_file_sets:
            noted.discard(path)

    uploads = UploadFolder(Path(folder), most=_MOST_KEPT, lifetime=float(FORGOTTEN[1]), forgotten=forgotten)
    try:
        page.launch(
            server_name=f"[{host}]" if ":" in host else host,  # as gradio puts it into addresses
            server_port=chosen,
            inbrowser=browser,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            inline=False,
            show_error=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            num_workers=0,
            run_history=False,
            footer_links=[],
            max_file_size=MOST_BYTES,
            state_session_capacity=_VISITORS,
            theme=theme(),
            css=style(),
            app_kwargs={"lifespan": _guarding(uploads, page, is_own_name)},
        )
    except OSError as failure:  # taken between looking and listening
        raise SettingError(f"The page cannot be served at {host}:{chosen} ({failure}). Give another --port, or 0.") from failure
    if not isinstance(page.app.middleware_stack, Guard):  # a server that does not tell its application that it starts
        page.close(verbose=False)
        raise RuntimeError("The page was not guarded, and is closed again.")
    name = f"[{host}]" if ":" in host else host
    return Served(url=f"http://{name}:{chosen}/", page=page)


def _guarding(
    uploads: UploadFolder, page: Any, is_own_name: Callable[[str], bool] | None
) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """Return what happens around the life of gradio's server: nothing is answered before the guard stands."""

    @asynccontextmanager
    async def guarded(app: Any) -> AsyncIterator[None]:
        # Outside of all that gradio puts around its own application, so that its errors have the headers too.
        app.middleware_stack = Guard(app.middleware_stack, uploads, is_own_name=is_own_name)
        sweeping = asyncio.create_task(_sweeping(uploads, page))
        try:
            yield
        finally:
            sweeping.cancel()

    return guarded


def own_names(host: str, names: Sequence[str] = ()) -> Callable[[str], bool] | None:
    """Return what tells the names that the page may be called by; None where others reach the address and no names are given: any.

    Args:
        host: the address that is listened at, however it is written.
        names: other names, in any case.

    Raises:
        SettingError: a name that is none, but an address with a scheme, a port or a path.
    """
    for name in names:
        if not _NAME.fullmatch(name):
            raise SettingError(f"A name is wanted as it stands in the page's address, such as lab.example.org, got {name!r}.")
    try:
        reached = {str(address[0]) for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        reached = {host}
    if not names and not all(map(is_local, reached)):
        return None
    own = {host.lower(), *(name.lower() for name in names)}
    return lambda name: is_local(name) or name.lower() in own


async def _sweeping(uploads: UploadFolder, page: Any) -> None:
    while True:
        await asyncio.sleep(_SWEPT)
        for forget in (uploads.sweep, functools.partial(forget_shown, page), give_back_memory):
            try:
                await asyncio.to_thread(forget)
            except Exception:  # the page goes on, and the next round tries again
                _LOG.exception("The explorer could not let go of what it no longer needs.")


def forget_shown(page: Any) -> None:
    """Let go of the pictures that visitors were shown.

    Gradio keeps what stands in each visitor's page for links to a page's state, which are not offered here. Of a model that draws a
    thousand pixels across, that is a hundred megabytes a visitor.
    """
    for session in list(page.state_holder.session_data.values()):
        for control in list(session.config_values.values()):
            properties = (control or {}).get("props", {})
            if isinstance(properties.get("value"), str) and len(properties["value"]) > _LONG:
                properties["value"] = ""


def _share_heaps() -> None:
    """Let the server's threads share two heaps, where the C library can.

    Each would have one of its own, of which little is in use at any time: with twenty visitors they held 700 MB that nobody used.
    """
    of_c_library("mallopt", _MOST_HEAPS, 2)


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
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
