"""Run `latlas` with every host that the process looks up or connects to written to the file that LATLAS_AUDIT names."""

import os
import sys
from pathlib import Path

_WATCHED = ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect")


def _note(event: str, details: tuple[object, ...]) -> None:
    if event not in _WATCHED:
        return
    host = details[1] if event == "socket.connect" else details[0]
    with Path(os.environ["LATLAS_AUDIT"]).open("a", encoding="utf-8") as log:
        log.write(f"{host[0] if isinstance(host, tuple) else host}\n")


if __name__ == "__main__":
    sys.addaudithook(_note)
    from latlas.cli.main import run

    run()
