"""Make the models that latlas carries: train what is not there yet, and keep weights, config and card.

    make zoo        # all of them: an hour on two cores; those under runs/ are not trained again

Each is the result of one command with one seed. What is kept lies in src/latlas/models/carried and is small enough for the repository.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from latlas.base.artifacts import CONFIG, read_json, writing
from latlas.models.generator import GeneratorModel
from latlas.models.recoder import Recoder
from latlas.models.vae import VAE
from latlas.models.zoo import CARRIED

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs"
LARGEST = 5_000_000  # bytes

# Name -> the command behind `latlas`, to which the name and the folder are added; a recoder's generator stands before it
COMMANDS = {
    "avatars-dcgan": "train dcgan 'avatars:train?hat=0&size=32' --steps 9000 --channels 32 --precision bfloat16",
    "avatars-stylegan2": "train stylegan2 'avatars:train?hat=0&size=32' --steps 14000 --batch-size 16",
    "avatars-dcgan-recoder": "train recoder zoo:avatars-dcgan --loss both --steps 6000 --channels 16",
    "avatars-stylegan2-recoder": "train recoder 'zoo:avatars-stylegan2#w' --loss both --steps 5000 --channels 16",
}
KINDS: dict[str, Any] = {"generator": GeneratorModel, "recoder": Recoder, "vae": VAE}


def main() -> int:
    """Train, copy, describe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="which; all by default")
    asked = parser.parse_args()
    if unknown := [name for name in asked.names if name not in COMMANDS]:
        parser.error(f"no model of the zoo is called {', '.join(unknown)}; there are {', '.join(COMMANDS)}")
    for name in asked.names or COMMANDS:
        command = f"latlas {COMMANDS[name]} --name {name} --out runs/{name}"
        stamp = RUNS / f"{name}.command"  # an earlier training by another command is none of this model
        if not (RUNS / name / CONFIG).is_file() or not stamp.is_file() or stamp.read_text(encoding="utf-8") != command:
            latlas = str(Path(sys.executable).parent / "latlas")
            subprocess.run([latlas, *shlex.split(command)[1:], "--replace"], cwd=ROOT, check=True)
            stamp.write_text(command, encoding="utf-8")
        carry(name, command)
    return 0


def carry(name: str, command: str) -> None:
    """Keep a trained model without its history, with its card; what was carried before stays if it cannot be kept."""
    record: Any = read_json(RUNS / name / CONFIG)
    model = KINDS[record["kind"]].from_pretrained(RUNS / name)
    with writing(CARRIED / name, replace=True) as beside:
        model.write_files(beside)
        card = beside / "README.md"
        text = card.read_text(encoding="utf-8")
        card.write_text(f"{text.rstrip()}\n\n## Made by\n\n```\n{command}\n```\n", encoding="utf-8")
        size = sum(path.stat().st_size for path in beside.iterdir())
        if size > LARGEST:
            raise SystemExit(f"{name} takes {size:,} bytes; the repository carries at most {LARGEST:,} of each.")
    print(f"{name}: {size:,} bytes")


if __name__ == "__main__":
    sys.exit(main())
