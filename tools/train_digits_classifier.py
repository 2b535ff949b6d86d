"""Make the classifiers that latlas carries: about a minute and a half each on one core.

    python tools/train_digits_classifier.py                            # digits, at least 98.5 % of the test images right
    python tools/train_digits_classifier.py --data fashion-mnist       # garments

The same seed and the same torch on the same kind of processor give the same weights.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch.nn import functional as F

from latlas.base.provenance import Provenance
from latlas.base.seeds import derived_seed, generator
from latlas.data.loading import load_images
from latlas.measurements.classifier import DigitsClassifier, accuracy

WEIGHTS = Path(__file__).parents[1] / "src/latlas/measurements/weights"
NAMES = {"mnist": "digits classifier", "fashion-mnist": "fashion classifier"}
LEAST = {"mnist": 0.985, "fashion-mnist": 0.90}  # below this share of test images right, nothing is written
BATCH, RATE = 128, 2e-3


def train(data: str, *, seed: int, epochs: int) -> DigitsClassifier:
    """Return a trained classifier, its settings filled in."""
    images, test = load_images(f"{data}:train"), load_images(f"{data}:test")
    pixels, labels = images.tensor(), images.labels
    assert labels is not None
    assert test.labels is not None
    torch.manual_seed(derived_seed(seed, "classifier", data))  # for the initial weights, which torch draws globally
    network = DigitsClassifier(name=NAMES[data])
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    steps = epochs * -(-len(pixels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    shuffle = generator(seed, "classifier", data, "batches")
    for epoch in range(epochs):
        for chosen in torch.randperm(len(pixels), generator=shuffle).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(network.logits(network(pixels[chosen])), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: {accuracy(network, test.tensor(), test.labels):.4f} of the test images right", flush=True)
    network.settings = {
        "data": data,
        "test_accuracy": accuracy(network, test.tensor(), test.labels),
        "command": f"python tools/train_digits_classifier.py --data {data} --seed {seed} --epochs {epochs}",
    }
    network.provenance = Provenance(
        made_by="tools/train_digits_classifier.py",
        seed=seed,
        made_from={"images": images.content_hash},
        settings={"data": data, "epochs": epochs, "batch_size": BATCH, "learning_rate": RATE},
    )
    return network.eval()


def main() -> int:
    """Train, check the accuracy, write the artifact folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=sorted(NAMES), default="mnist")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, help="the folder to write; by default the one inside the package")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    network = train(asked.data, seed=asked.seed, epochs=asked.epochs)
    reached = network.settings["test_accuracy"]
    if reached < LEAST[asked.data]:
        print(f"Only {reached:.4f} of the test images are right, at least {LEAST[asked.data]} are wanted: nothing was written.")
        return 1
    out = asked.out or WEIGHTS / NAMES[asked.data].replace(" ", "-")
    network.save_pretrained(out, replace=True)
    print(f"{out}: {reached:.4f} of the test images right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
