"""Check the lock: every line pinned, no version that is known to be malicious, no package that breaks the others.

    python tools/audit.py             # what can be told without a network; a test runs it
    python tools/audit.py --advisories   # and pip-audit over the lock, which asks the advisory databases

Returns 1 if anything is wrong, 2 if the databases could not be asked.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;#]+)$")
# name -> versions never to be installed, and why
REFUSED = {
    "lightning": ({"2.6.2", "2.6.3"}, "malicious uploads, GHSA-w37p-236h-pfx3"),
    "torchvision": (None, "its wheels do not import beside a CPU-only torch"),
}


def findings(lock: str) -> list[str]:
    """Return what is wrong with a lock, a line each.

    >>> findings("lightning==2.6.3")
    ['lightning 2.6.3 is refused: malicious uploads, GHSA-w37p-236h-pfx3']
    >>> findings("numpy>=2")
    ["'numpy>=2' pins no version: write name==version"]
    """
    wrong, seen = [], set()
    for line in (line.strip() for line in lock.splitlines()):
        if not line or line.startswith("#"):
            continue
        match = _PIN.match(line)
        if match is None:
            wrong.append(f"{line!r} pins no version: write name==version")
            continue
        name = re.sub(r"[-_.]+", "-", match["name"]).lower()
        if name in seen:
            wrong.append(f"{name} is pinned twice")
        seen.add(name)
        versions, why = REFUSED.get(name, (set(), ""))
        if versions is None or match["version"] in versions:
            wrong.append(f"{name} {match['version']} is refused: {why}")
    return wrong


def main() -> int:
    """Print what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--advisories", action="store_true", help="ask the advisory databases too; needs pip-audit")
    asked = parser.parse_args()
    lock = ROOT / "constraints.txt"
    wrong = findings(lock.read_text(encoding="utf-8"))
    print("\n".join(wrong) if wrong else "The lock holds pinned versions only, and none that is refused.")
    if wrong:
        return 1
    if asked.advisories:
        program = shutil.which("pip-audit") or str(Path(sys.executable).with_name("pip-audit"))
        if not Path(program).is_file():
            print("pip-audit is not installed: pip install pip-audit")
            return 2
        done = subprocess.run(
            [program, "--requirement", str(lock), "--no-deps", "--disable-pip"], capture_output=True, text=True, check=False
        )
        unknown = done.stdout.count("could not be audited")
        print(
            done.stdout + done.stderr
            if unknown == 0
            else f"{unknown} packages could not be asked about: no way to the databases."
        )
        return 2 if unknown else done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
