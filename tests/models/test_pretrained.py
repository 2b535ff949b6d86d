"""Every network that we save: card, Hub, folders of before there were cards, and specs that name a generator with its recoder."""

import re
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from torch import Tensor

from latlas.base.artifacts import CARD, CONFIG, save_tensors, write_config, writing
from latlas.base.cards import FOLDER
from latlas.base.errors import ArtifactError, CapabilityError, LatlasError, MissingPathError
from latlas.base.provenance import Provenance
from latlas.models import pretrained
from latlas.models.architectures.dcgan import DCGAN
from latlas.models.architectures.registry import architecture
from latlas.models.architectures.stylegan2 import StyleGAN2
from latlas.models.generator import GeneratorModel
from latlas.models.loading import load_model
from latlas.models.pretrained import WEIGHTS, PretrainedNetwork
from latlas.models.recoder import RecodedGenerator, Recoder, RecoderSettings, with_recoder
from latlas.models.vae import VAE

SHAPE = (1, 8, 8)


def dcgan() -> GeneratorModel:
    torch.manual_seed(1)
    return GeneratorModel(DCGAN(channels=2, latent=3), SHAPE, name="small gan")


def stylegan() -> GeneratorModel:
    torch.manual_seed(2)
    settings = StyleGAN2(latent=3, style=4, layers=1, channel_base=64, channel_max=8)
    return GeneratorModel(settings, SHAPE, name="small style")


def recoder() -> Recoder:
    torch.manual_seed(3)
    network = Recoder(dcgan(), RecoderSettings(channels=2, widest=4, hidden=8), code_mean=torch.tensor([1.0, 2.0, 3.0]))
    torch.nn.init.normal_(network.head[-1].weight)  # else it answers with the mean, whatever the image
    return network


def vae() -> VAE:
    torch.manual_seed(4)
    return VAE(architecture("dense", widths=(8,), latent=2), SHAPE, name="small vae")


EVERY = (dcgan, stylegan, recoder, vae)


@pytest.mark.parametrize("make", EVERY)
def test_its_card_can_be_read_by_the_hub_and_its_usage_runs(make: Callable[[], PretrainedNetwork], tmp_path: Path) -> None:
    """The lines of Python on the card are run as they stand, but for the folder's name."""
    network = make()
    network.save_pretrained(tmp_path / "kept")
    text = (tmp_path / "kept" / CARD).read_text(encoding="utf-8")
    data = huggingface_hub.ModelCard(text).data
    assert (data.library_name, data.tags[:2]) == ("latlas", ["latlas", network.kind])
    count = sum(parameter.numel() for parameter in network.parameters())
    assert f"| parameters | {count:,} |" in text
    match = re.search("```python\n(.*?)```", text, flags=re.DOTALL)
    assert match is not None
    names = {"images": torch.rand(16, *SHAPE), "generator": dcgan()}
    exec(match[1].replace(FOLDER, str(tmp_path / "kept")), names)
    if make is not recoder:
        result = names["images" if isinstance(network, GeneratorModel) else "reconstructions"]
        assert isinstance(result, Tensor)
        assert tuple(result.shape) == (16, *SHAPE)
    else:
        assert isinstance(names["both"], RecodedGenerator)


@pytest.mark.parametrize("make", EVERY)
def test_a_folder_without_a_card_is_read_as_before(make: Callable[[], PretrainedNetwork], tmp_path: Path) -> None:
    network = make()
    with writing(tmp_path / "old") as beside:
        save_tensors(beside / WEIGHTS, network.state_dict())
        write_config(beside, kind=network.kind, settings=network.settings_to_json(), provenance=Provenance(made_by="test"))
    assert sorted(path.name for path in (tmp_path / "old").iterdir()) == sorted([CONFIG, WEIGHTS])
    again = load_model(tmp_path / "old")
    assert type(again) is type(network)
    assert again.fingerprint == network.fingerprint
    assert again.name == network.name


@pytest.mark.parametrize("make", EVERY)
def test_a_hub_id_is_resolved_and_errors_name_it(
    make: Callable[[], PretrainedNetwork], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make()
    network.save_pretrained(tmp_path / "fetched")
    monkeypatch.setattr(pretrained, "resolve", lambda spec: tmp_path / "fetched" if spec == "ada/small" else Path(spec))
    assert type(network).from_pretrained("ada/small").fingerprint == network.fingerprint  # type: ignore[attr-defined]
    raw = bytearray((tmp_path / "fetched" / WEIGHTS).read_bytes())
    raw[-1] ^= 1
    (tmp_path / "fetched" / WEIGHTS).write_bytes(raw)
    with pytest.raises(ArtifactError, match="is damaged"):
        type(network).from_pretrained("ada/small")  # type: ignore[attr-defined]


@pytest.mark.parametrize("make", EVERY)
def test_it_is_pushed_with_its_card(make: Callable[[], PretrainedNetwork], monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: dict[str, bytes] = {}

    class Api:
        endpoint = "https://hub"

        def __init__(self, **settings: object) -> None: ...

        def create_repo(self, repository: str, **settings: object) -> None: ...

        def create_commit(
            self, repository: str, additions: list[huggingface_hub.CommitOperationAdd], **settings: object
        ) -> None:
            for each in additions:
                with each.as_file() as file:
                    pushed[each.path_in_repo] = file.read()

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert make().push_to_hub("ada/small") == "https://hub/ada/small"
    assert set(pushed) == {CONFIG, CARD, WEIGHTS}
    assert 'load_model("ada/small")' in pushed[CARD].decode()


# GENERATOR+RECODER


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a generator, its recoder, another generator and a VAE; it is the current one."""
    monkeypatch.chdir(tmp_path)
    for name, make in {"runs/gan": dcgan, "runs/codes": recoder, "runs/other": stylegan, "runs/vae": vae, "c++/gan": dcgan,
                       "c++/codes": recoder}.items():  # fmt: skip
        make().save_pretrained(name)
    return tmp_path


@pytest.mark.parametrize("spec", ["runs/gan+runs/codes", "c++/gan+runs/codes", "runs/gan+c++/codes", "c++/gan+c++/codes"])
def test_generator_and_recoder_are_named_together(spec: str, runs: Path) -> None:
    both, expected = load_model(spec), with_recoder(dcgan(), recoder())
    assert isinstance(both, RecodedGenerator)
    assert both.fingerprint == expected.fingerprint
    images = torch.rand(2, *SHAPE)
    assert both.encode(images).mean.equal(expected.encode(images).mean)
    codes = both.sample_codes(2, torch.Generator().manual_seed(0))
    assert both.decode(codes).equal(expected.decode(codes))


def test_the_generator_may_come_by_a_scheme_whose_spec_ends_in_the_sign(runs: Path) -> None:
    wide = load_model("stylegan2:runs/other#w+")
    assert not isinstance(wide, RecodedGenerator)
    Recoder(wide, RecoderSettings(channels=2, widest=4, hidden=8)).save_pretrained("runs/wide-codes")
    both = load_model("stylegan2:runs/other#w++runs/wide-codes")
    assert isinstance(both, RecodedGenerator)
    assert both.latent_shape == wide.latent_shape


def test_a_path_that_is_there_is_a_path(runs: Path) -> None:
    dcgan().save_pretrained("runs/gan+runs/codes")
    assert isinstance(load_model("runs/gan+runs/codes"), GeneratorModel)
    with pytest.raises(MissingPathError, match=r"No model folder runs/other\+runs/codes"):
        load_model(Path("runs/other+runs/codes"))
    stylegan().save_pretrained("a+runs/other")
    assert load_model("stylegan2:a+runs/other").fingerprint == load_model("stylegan2:runs/other").fingerprint


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("runs/gan+runs/cdes", MissingPathError, "No folder runs/cdes: expected a latlas recoder there"),
        ("runs/gan+cdes", MissingPathError, "No folder cdes: expected a latlas recoder there"),
        ("runs/gna+runs/codes", MissingPathError, "No model folder runs/gna"),
        ("nothing+nowhere", MissingPathError, r"No model folder nothing\+nowhere"),
        ("runs/gan+", MissingPathError, r"No model folder runs/gan\+"),
        ("+runs/codes", MissingPathError, r"No model folder \+runs/codes"),
        ("runs/gan+runs/vae", ArtifactError, "runs/vae holds a latlas vae, where a latlas recoder is needed"),
        ("runs/other+runs/codes", CapabilityError, "codes the images of small gan, with other weights than small style"),
        ("runs/codes+runs/codes", CapabilityError, "A recoder needs a decoder that can draw its own codes"),
        ("runs/gan+runs/codes+runs/codes", CapabilityError, "with other weights than small gan with recoder has"),
    ],
)
def test_what_is_no_pair_is_told_in_one_line(spec: str, error: type[LatlasError], words: str, runs: Path) -> None:
    with pytest.raises(error, match=words) as told:
        load_model(spec)
    assert "\n" not in str(told.value)
