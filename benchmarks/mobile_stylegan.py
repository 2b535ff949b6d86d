"""MobileStyleGAN in latlas beside OpenVINO in one run: time an image, in turns, and the largest difference of a pixel.

    python benchmarks/mobile_stylegan.py                                # where openvino is installed beside latlas
    python benchmarks/mobile_stylegan.py --openvino OTHER/bin/python    # where it is in an environment of its own

Needs the package random-face. Both compute in float32 on the same number of threads: one, unless asked otherwise, as OpenMP's
threads wait for one another by counting on a machine that does other things too (OMP_WAIT_POLICY=PASSIVE lets them sleep). A round
draws one image with each, so that what else the machine does falls on both; the figures are medians over rounds. Writes
benchmarks/results/mobile_stylegan.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latlas.base.provenance import package_versions
from latlas.base.seeds import generator
from latlas.data.faces import CELEBA, FFHQ, Crop, celeba_crop, rectangle, resizing
from latlas.models.adapters.mobile_stylegan import MobileStyleGANModel
from latlas.models.zoo import mobile_stylegan

RESULTS = Path(__file__).parent / "results" / "mobile_stylegan.json"
SLOWEST, FARTHEST = 3.0, 1e-3
FACES = 16  # whose crops are compared

# Runs under an interpreter that need not have latlas: draws the code in one file into another for each line that it gets.
WORKER = """
import json, sys, time
import numpy, openvino
network, threads, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
core = openvino.Core()
exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
draw = core.compile_model(core.read_model(network), "CPU", exact)
print(json.dumps(openvino.__version__), flush=True)
for line in sys.stdin:
    code = numpy.load(folder + "/code.npy")
    wall, processor = time.perf_counter(), time.process_time()
    image = draw([code])[0]
    spent = [time.perf_counter() - wall, time.process_time() - processor]
    numpy.save(folder + "/image.npy", image)
    print(json.dumps(spent), flush=True)
"""


def main() -> int:
    """Measure, write; return 1 if a bound was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--openvino", default=sys.executable, help="the Python that has openvino")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8, help="images of the batch that is timed too")
    parser.add_argument("--smoke", action="store_true", help="only whether it runs; writes nothing")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    model = mobile_stylegan(space="w")
    codes = model.sample_codes(2 if asked.smoke else asked.rounds, generator(0, "codes"))
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours, farthest, version = _rounds(model, codes, asked.openvino, asked.threads, Path(folder))
    wall, processor = (median(our[kind] / their[kind] for our, their in zip(ours, theirs, strict=True)) for kind in (0, 1))
    lines = [
        _bound("processor time of an image over OpenVINO's", processor, SLOWEST),
        _bound("wall time of an image over OpenVINO's", wall, SLOWEST),
        _bound("largest difference of a pixel in [0, 1]", farthest, FARTHEST),
    ]
    print("\n".join(lines))
    if not asked.smoke:
        record = {
            "command": f"python benchmarks/mobile_stylegan.py --threads {asked.threads} --rounds {asked.rounds}",
            "rounds": asked.rounds,
            "threads": asked.threads,
            "latlas": _seconds(ours),
            "openvino": _seconds(theirs),
            "ratio": {"wall": wall, "processor": processor},
            "largest_difference": farthest,
            "batch": _batch(model, codes[:1].expand(asked.batch, -1)) | {"images": asked.batch},
            "misaligned": _misaligned(model),
            "bounds": lines,
            "versions": package_versions() | {"openvino": version, "random-face": metadata.version("random-face")},
        }
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        print(json.dumps({key: record[key] for key in ("latlas", "openvino", "batch")}, indent=2))
    return 0 if all(line.startswith("kept") for line in lines) else 1


def _rounds(
    model: MobileStyleGANModel, codes: Tensor, python: str, threads: int, folder: Path
) -> tuple[list[list[float]], list[list[float]], float, str]:
    """Return (wall, processor) seconds of each round, theirs and ours, the largest difference, and openvino's version."""
    network = metadata.distribution("random-face").locate_file("random_face/data/SynthesisNetwork.xml")
    command = [python, "-c", WORKER, str(network), str(threads), str(folder)]
    theirs, ours, farthest = [], [], 0.0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker, torch.no_grad():
        answers, requests = worker.stdout, worker.stdin
        if answers is None or requests is None or not (started := answers.readline()):
            raise SystemExit(f"{python} cannot run openvino. Name a Python that has it: --openvino OTHER/bin/python")
        for number, code in enumerate([codes[0], *codes]):  # the first once more: it pays for what is allocated
            np.save(folder / "code.npy", code[None].numpy())
            requests.write("draw\n")
            requests.flush()
            their = json.loads(answers.readline())
            our, image = _timed(model, code[None])
            gap = image - torch.from_numpy(np.load(folder / "image.npy") / 2 + 0.5).clamp(0, 1)
            farthest = max(farthest, float(gap.abs().max()))
            if number:
                theirs.append(their)
                ours.append(our)
        requests.close()
    return theirs, ours, farthest, json.loads(started)


def _timed(model: MobileStyleGANModel, codes: Tensor) -> tuple[list[float], Tensor]:
    wall, processor = time.perf_counter(), time.process_time()
    images = model.decode(codes)
    return [time.perf_counter() - wall, time.process_time() - processor], images.detach()


def _batch(model: MobileStyleGANModel, codes: Tensor) -> dict[str, float]:
    """Return processor seconds an image in a batch, without and with the gradient of its codes."""
    spent, _ = _timed(model, codes)
    leaf = codes.clone().requires_grad_()
    started = time.process_time()
    model.decode(leaf).square().sum().backward()  # type: ignore[no-untyped-call]
    with_gradient = time.process_time() - started
    return {"processor": spent[1] / len(codes), "processor_with_gradient": with_gradient / len(codes)}


def _misaligned(model: MobileStyleGANModel) -> dict[str, float]:
    """Return the squared error per pixel between the 64 x 64 crop of faces and the same with a mistake in it."""
    right, size = celeba_crop(), (64, 64)
    square = (CELEBA.height, CELEBA.width)
    # Where FFHQ's own rule puts its frame in CelebA's pictures, on the mean of CelebA's first 80 faces (docs/concepts/face-crops.md).
    scale = 80.0 / (FFHQ.width / 2)
    rule = Crop(
        source=(FFHQ.height, FFHQ.width),
        target=square,
        factor=complex(scale),
        shift=complex(88.94, 115.82) - scale * complex(FFHQ.width / 2, FFHQ.height / 2),
    )
    wrong = {
        "shifted by half a pixel": right.then(Crop(source=size, target=size, shift=0.5 + 0j)),
        "shifted by one pixel": right.then(Crop(source=size, target=size, shift=1 + 0j)),
        "shifted by two pixels": right.then(Crop(source=size, target=size, shift=2 + 0j)),
        "5 % too large, about the centre": right.then(Crop(source=size, target=size, factor=1.05 + 0j, shift=-1.6 - 1.6j)),
        "aligned by FFHQ's rule on CelebA's landmarks": rule.then(rectangle(square, left=25, upper=45, size=(128, 128))).then(
            resizing((128, 128), size)
        ),
        "the 140 crop for the 128 crop": celeba_crop(crop=140),
        "FFHQ's whole frame": resizing((FFHQ.height, FFHQ.width), size),
    }
    errors = dict.fromkeys(wrong, 0.0)
    with torch.no_grad():
        for code in model.sample_codes(FACES, generator(0, "crops")):
            face = model.decode(code[None])
            for name, crop in wrong.items():
                errors[name] += float((crop.apply(face, outside="edge") - right.apply(face)).square().mean()) / FACES
    return errors


def crop_table(record: dict[str, Any]) -> str:
    """Return the table of docs/concepts/face-crops.md."""
    rows = [f"| {name} | {error:.4f} |" for name, error in record["misaligned"].items()]
    return "\n".join(["| mistake | squared error per pixel |", "| --- | --- |", *rows])


def _seconds(rows: list[list[float]]) -> dict[str, float]:
    wall, processor = zip(*rows, strict=True)
    return {"wall": median(wall), "processor": median(processor)}


def _bound(name: str, value: float, most: float) -> str:
    return f"{'kept' if value <= most else 'MISSED'}: {name}: {value:.3g}, at most {most:g}"


if __name__ == "__main__":
    sys.exit(main())
