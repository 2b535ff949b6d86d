"""The models that latlas carries: small, whole, described, and good for what they are said to be good for."""

from pathlib import Path
from typing import Any

import pytest
import torch

from latlas.base.artifacts import read_json
from latlas.base.seeds import generator as seeded
from latlas.models.loading import load_model
from latlas.models.protocols import require_encoder, require_generator
from latlas.models.zoo import CARRIED, ZOO

FOLDERS = sorted(path for path in CARRIED.iterdir() if path.is_dir())
PAIRS = {"zoo:avatars-dcgan": "zoo:avatars-dcgan-recoder", "zoo:avatars-stylegan2#w": "zoo:avatars-stylegan2-recoder"}


def test_every_carried_folder_has_a_name() -> None:
    assert FOLDERS
    assert {path.name for path in FOLDERS} <= set(ZOO)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_carried_model_is_small_and_its_card_has_the_command(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 5_000_000
    config: Any = read_json(folder / "config.json")
    seed, settings = config["provenance"]["seed"], config["provenance"]["settings"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    (command,) = [line for line in card.splitlines() if line.startswith("latlas train ")]
    assert f"--steps {settings['steps']} " in command
    assert f"--seed {seed}" in command or seed == 0  # the default
    assert load_model(f"zoo:{folder.name}").fingerprint


@pytest.mark.parametrize("spec", PAIRS)
def test_a_recoder_brings_back_what_its_generator_draws(spec: str) -> None:
    drawing = require_generator(load_model(spec), "This test")
    recoder = require_encoder(load_model(PAIRS[spec]), "This test")
    with torch.inference_mode():
        images = drawing.decode(drawing.sample_codes(200, seeded(7)))
        again = drawing.decode(recoder.encode(images).mean)
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    # A tenth of what the mean image leaves, which knows nothing of the image.
    assert float((again - images).square().mean()) < 0.1 * float(images.var(dim=0).mean())
    shuffled = images[torch.randperm(200, generator=torch.Generator().manual_seed(1))]
    assert float((again - shuffled).square().mean()) > float(images.var(dim=0).mean())


def test_the_stylegan_has_its_three_spaces() -> None:
    shapes = {space: tuple(load_model(f"zoo:avatars-stylegan2#{space}").latent_shape) for space in ("z", "w", "w+")}
    assert shapes == {"z": (64,), "w": (64,), "w+": (8 * 64,)}
    codes = require_generator(load_model("zoo:avatars-stylegan2#w"), "This test").sample_codes(3, seeded(0))
    drawn = [
        require_generator(load_model(f"zoo:avatars-stylegan2#{space}"), "This test").decode(each)
        for space, each in (("w", codes), ("w+", codes.repeat(1, 8)))
    ]
    torch.testing.assert_close(drawn[0], drawn[1])
