"""One small artifact of every kind that latlas writes, how each is read, and what becomes of it when a byte changes."""

import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from latlas.base.artifacts import CARD, CONFIG, peek, read_config
from latlas.base.errors import LatlasError
from latlas.base.provenance import Provenance
from latlas.data.images import ImageSet
from latlas.encodings.encode import encode
from latlas.encodings.encoding import Encoding
from latlas.maps.fit import fit_map
from latlas.maps.linear import LinearMap
from latlas.maps.loading import load_map
from latlas.maps.preview import PreviewMatrix, fit_preview
from latlas.maps.spatial import fit_spatial_map
from latlas.maps.spatial_map import SpatialMap
from latlas.models.architectures.autoencoder_kl import AutoencoderKL
from latlas.models.architectures.dcgan import DCGAN
from latlas.models.architectures.dense import Dense
from latlas.models.architectures.stylegan2 import StyleGAN2
from latlas.models.generator import GeneratorModel
from latlas.models.loading import load_model
from latlas.models.recoder import Recoder, RecoderSettings
from latlas.models.vae import VAE
from latlas.reports.page import Finding, Numbers, Report, Section, Words, write_report
from latlas.samplers.fit import SAMPLER_KINDS, fit_sampler, load_sampler
from latlas.samplers.second_stage import SecondStageSettings
from latlas.studies.pruning import prune
from latlas.studies.support import build_support_set
from latlas.supports.support_set import SupportSet

SIDE = 8


def blobs(count: int = 60) -> ImageSet:
    """Return small blurred images."""
    coarse = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(7))
    smooth = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear").clamp(0, 1)
    return ImageSet("blobs", (smooth * 255).round().to(torch.uint8))


def make_all(folder: Path) -> Path:
    """Write one artifact of every kind below a folder; each network as it is before training."""
    images = blobs()
    torch.manual_seed(11)
    provenance = Provenance(made_by="sample", seed=11)
    first, second = (
        VAE(Dense(widths=(6,), latent=3), images.image_shape, name=name, provenance=provenance).eval()
        for name in ("first", "second")
    )
    with torch.no_grad():
        for parameter in (*first.parameters(), *second.parameters()):
            parameter.mul_(4)  # so that codes differ, as after a training
    spatial, other = (
        VAE(
            AutoencoderKL(latent=2, channels=(4, 4), norm_groups=2), images.image_shape, name=name, provenance=provenance
        ).eval()
        for name in ("spatial", "other")
    )
    gan = GeneratorModel(DCGAN(channels=2, latent=3), images.image_shape, name="gan", provenance=provenance).eval()
    style = StyleGAN2(latent=3, style=3, layers=1, channel_base=16, channel_max=4)
    first.save_pretrained(folder / "vae")
    spatial.save_pretrained(folder / "autoencoder")
    gan.save_pretrained(folder / "generator")
    GeneratorModel(style, images.image_shape, name="style", provenance=provenance).eval().save_pretrained(folder / "stylegan2")
    Recoder(gan, RecoderSettings(channels=2, widest=4, hidden=4), name="codes", provenance=provenance).save_pretrained(
        folder / "recoder"
    )
    codes, others = encode(first, images), encode(second, images)
    codes.save_pretrained(folder / "encoding")
    encode(first, images, out=folder / "encoding-stored")
    fit_map(codes, others).save_pretrained(folder / "map")
    grids, other_grids = encode(spatial, images), encode(other, images)
    spatial_map = fit_spatial_map(grids, other_grids)
    spatial_map.save_pretrained(folder / "spatial-map")
    fit_preview(grids, images).save_pretrained(folder / "preview")
    build_support_set(first, images, variables=2, encoding=codes, seed=0).save_pretrained(folder / "support-set")
    for kind in SAMPLER_KINDS:
        stage = SecondStageSettings(layers=1, width=4, epochs=1) if kind == "second-stage" else None
        fit_sampler(kind, codes, components=2, second_stage=stage).save_pretrained(folder / f"sampler-{kind}")
    prune(first, images, keep=2).save_pretrained(folder / "pruned")
    section = Section(
        title="A section", lead="What is seen.", blocks=[Words(text="Words."), Numbers(items=[(1.5, "of", "it")])]
    )
    report = Report(
        title="A report",
        subtitle="of nothing",
        summary=[Finding(headline="Found.", text="Something.")],
        sections=[section],
        numbers={"value": 1.5},
        provenance=provenance,
    )
    write_report(report, folder / "report")
    return folder


def read_report(folder: Path) -> Any:
    """Read a report as its reader can: nothing of latlas computes from one, so its config and its files are all there is."""
    return read_config(folder, kind="report")


READERS: Mapping[str, Callable[[Path], Any]] = {
    "vae": VAE.from_pretrained,
    "autoencoder": load_model,
    "generator": GeneratorModel.from_pretrained,
    "stylegan2": load_model,
    "recoder": Recoder.from_pretrained,
    "encoding": Encoding.from_pretrained,
    "encoding-stored": Encoding.from_pretrained,
    "map": LinearMap.from_pretrained,
    "spatial-map": SpatialMap.from_pretrained,
    "preview": PreviewMatrix.from_pretrained,
    "support-set": SupportSet.from_pretrained,
    **{f"sampler-{kind}": load_sampler for kind in SAMPLER_KINDS},
    "pruned": load_model,
    "pruned/to-pruned": load_map,
    "report": read_report,
}


def files_of(folder: Path) -> list[Path]:
    """Return every file of an artifact but its cards, which are for people and may be edited."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CARD)


def flips(folder: Path, read: Callable[[Path], Any], *, each: int, seed: int = 0) -> Iterator[tuple[str, int, str]]:
    """Change one byte at a time, and yield file, position and what reading then said: empty if it said nothing.

    Args:
        folder: an artifact, which is as it was afterwards.
        read: its reader.
        each: changed bytes a file.
        seed: decides which bytes, and into what.
    """
    chance = random.Random(f"{seed} {folder.name}")
    for path in files_of(folder):
        whole = path.read_bytes()
        for _ in range(each):
            position = chance.randrange(len(whole))
            broken = bytearray(whole)
            broken[position] ^= chance.randrange(1, 256)
            path.write_bytes(broken)
            try:
                read(folder)
                said = ""
            except LatlasError as failure:
                said = str(failure)
            yield path.relative_to(folder).as_posix(), position, said
        path.write_bytes(whole)
    read(folder)


def flip_all(folder: Path, *, each: int) -> dict[str, Any]:
    """Change bytes of every file of every artifact that `make_all` wrote; return counts and what went unnoticed."""
    count, missed, files = 0, [], 0
    for name, read in READERS.items():
        seen = set()
        for file, position, said in flips(folder / name, read, each=each):
            count += 1
            seen.add(file)
            if not said:
                missed.append(f"{name}: {file}, byte {position}")
        files += len(seen)
    return {"artifacts": len(READERS), "files": files, "flips": count, "missed": missed}


def configs_of(folder: Path) -> list[Path]:
    """Return the folders of all artifacts below a folder."""
    return sorted(path.parent for path in folder.rglob(CONFIG) if peek(path.parent) is not None)
