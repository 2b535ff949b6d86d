"""Serve a page of models that take no time, in a process of its own; its address is printed."""

import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    from conftest import paintings
    from latlas.app.serving import serve

    served = serve(paintings(), port=0)
    print(served.url, flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    served.wait()
