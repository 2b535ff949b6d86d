"""A model's encoder or decoder as an ONNX file, written only once it gives what PyTorch gives."""

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from latlas._version import __version__
from latlas.base.artifacts import check_place, write_file
from latlas.base.errors import CapabilityError, MissingExtraError, OutputExistsError, SettingError
from latlas.base.provenance import Provenance
from latlas.base.seeds import generator
from latlas.models.protocols import LatentModel, device_of, require_encoder
from latlas.models.relocated import require_decoder

TOLERANCE = 1e-4  # largest difference to PyTorch, on images in [0, 1]; relative to the largest number where that is above 1
PARTS = ("decode", "encode")
_OPSET = 18
_AXIS = "n"
_LARGEST = 2**31  # bytes of a protobuf, the format of the file
_TRIED = (1, 3)  # batches that a file for any number is run on; traced with 2


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """An ONNX file, and how far its answers lie from PyTorch's."""

    path: Path
    what: str  # "decode" or "encode"
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    batch: int | None  # images or codes at a time; None for any number
    largest_difference: float  # of any number of any output, on random inputs


def export_onnx(
    model: LatentModel,
    path: str | Path,
    *,
    what: Literal["decode", "encode"] = "decode",
    batch: int | Literal["dynamic"] = "dynamic",
) -> ExportedModel:
    """Write a model's decoder or encoder as one ONNX file, after running it beside the model.

    A decoder takes `codes` and gives `images` in [0, 1]; an encoder takes `images` and gives `mean` and, unless it is
    deterministic, `log_variance`. All are float32. The file carries the model's name, shapes, fingerprint and provenance as
    metadata, and no path of this machine.

    Args:
        model: a VAE, a folded model, or any other whose method is made of PyTorch operations.
        path: of the file, which must not exist yet.
        what: which half.
        batch: how many at a time; "dynamic" for any number.

    Raises:
        SettingError: a half or a batch that there is not.
        OutputExistsError: something lies at the path.
        CapabilityError: the model lacks that half, cannot be expressed in ONNX, is too large for one file, or gives other
            answers there.
        MissingExtraError: no onnx, onnxscript or onnxruntime.
    """
    if what not in PARTS:
        raise SettingError(f"A model exports its {' or '.join(PARTS)} half, got {what!r}.")
    if batch != "dynamic" and (not isinstance(batch, int) or isinstance(batch, bool) or batch < 1):
        raise SettingError(f'A batch is a whole number of at least 1, or "dynamic" for any, got {batch!r}.')
    target = Path(path)
    check_place(target)
    if target.exists():
        raise OutputExistsError(f"{target} already exists; name a new file.")
    runtime = _packages()
    with _evaluating(model) if isinstance(model, nn.Module) else nullcontext():  # as it is exported
        half = _half(model, what)
    shape = tuple(model.latent_shape if what == "decode" else model.image_shape)
    place, fixed = device_of(model), None if isinstance(batch, str) else batch
    with _evaluating(half), torch.no_grad():
        proto = _traced(half, _example(shape, fixed or 2, what).to(place), model, fixed)
        names = [output.name for output in proto.graph.output]
        content = _with_metadata(proto, model, what)
        session = _session(runtime, content, model)
        difference = 0.0
        for count in _TRIED if fixed is None else (fixed,):
            given = _example(shape, count, what)
            answers = session.run(names, {proto.graph.input[0].name: given.numpy()})
            for name, answer, expected in zip(names, answers, half(given.to(place)), strict=True):
                difference = max(difference, _difference(torch.from_numpy(answer), expected.cpu(), model, name))
    write_file(target, lambda stream: stream.write(content))
    return ExportedModel(
        path=target,
        what=what,
        inputs=tuple(each.name for each in proto.graph.input),
        outputs=tuple(names),
        batch=fixed,
        largest_difference=difference,
    )


class _Half(nn.Module):
    """One method of a model as a network from a tensor to a tuple of tensors."""

    def __init__(self, model: Any, what: str) -> None:
        super().__init__()
        self.model = model
        self.what = what

    def forward(self, given: Tensor) -> tuple[Tensor, ...]:
        """Return the image, or mean and log-variance if there is one."""
        if self.what == "decode":
            return (self.model.decode(given),)
        posterior = self.model.encode(given)
        return (posterior.mean,) if posterior.log_variance is None else (posterior.mean, posterior.log_variance)


def _half(model: LatentModel, what: str) -> _Half:
    (require_decoder if what == "decode" else require_encoder)(model, f"An export of the {what} half")
    size = (
        sum(part.numel() * part.element_size() for part in model.state_dict().values()) if isinstance(model, nn.Module) else 0
    )
    if size >= _LARGEST:
        raise CapabilityError(
            f"{model.name} has {size / 2**30:.1f} GiB of weights, and an ONNX file holds 2. Export a model with fewer or smaller ones."
        )
    return _Half(model, what)


def _example(shape: Sequence[int], count: int, what: str) -> Tensor:
    stream = generator(0, "onnx", what, count)
    draw = torch.randn if what == "decode" else torch.rand
    return draw(count, *shape, generator=stream)


def _traced(half: _Half, example: Tensor, model: LatentModel, fixed: int | None) -> Any:
    outputs = ["images"] if half.what == "decode" else ["mean", "log_variance"][: len(half(example))]
    with _quiet():
        try:
            # The exporter that traces Python scripts knows neither every operation that is used here nor a future.
            program = torch.onnx.export(
                half,
                (example,),
                dynamo=True,
                input_names=["codes" if half.what == "decode" else "images"],
                output_names=outputs,
                dynamic_shapes=({0: _AXIS},) if fixed is None else None,
                opset_version=_OPSET,
                verbose=False,
            )
        except Exception as failure:  # whatever a model does that the exporter cannot follow
            raise CapabilityError(
                f"{model.name} cannot be exported: {_reason(failure)}. What is exported must be made of PyTorch operations, "
                "and do the same whatever the numbers are."
            ) from failure
    assert program is not None  # it is None where a file is asked for
    return program.model_proto


def _with_metadata(proto: Any, model: LatentModel, what: str) -> bytes:
    """Return the file's bytes: with what it is, and without the exporter's notes on which line of which file made what."""
    _forget_notes(proto)
    provenance = getattr(model, "provenance", None)
    facts = {
        "latlas.version": __version__,
        "latlas.model": model.name,
        "latlas.part": what,
        "latlas.fingerprint": model.fingerprint,
        "latlas.image_shape": json.dumps(list(model.image_shape)),
        "latlas.latent_shape": json.dumps(list(model.latent_shape)),
        "latlas.provenance": json.dumps(provenance.to_json(), sort_keys=True) if isinstance(provenance, Provenance) else "",
    }
    for name, value in facts.items():
        if value:
            proto.metadata_props.add(key=name, value=value)
    return bytes(proto.SerializeToString(deterministic=True))


def _forget_notes(message: Any) -> None:
    for note in ("metadata_props", "doc_string"):
        if note in message.DESCRIPTOR.fields_by_name:
            message.ClearField(note)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                _forget_notes(part)


def _session(runtime: Any, content: bytes, model: LatentModel) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors only
    try:
        return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as failure:  # the runtime's own kinds, which it does not name in public
        raise CapabilityError(f"{model.name} was exported, but onnxruntime cannot run it: {_reason(failure)}.") from failure


def _difference(found: Tensor, expected: Tensor, model: LatentModel, name: str) -> float:
    same = found.shape == expected.shape
    difference = float((found.double() - expected.double()).abs().max()) if same else float("inf")
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise CapabilityError(
            f"{model.name} was exported, but its {name} differ from PyTorch's by {difference:.2g}, and {TOLERANCE:g} is allowed. "
            "Nothing was written. A model that draws at random or computes in less than float32 cannot be exported."
        )
    return difference


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Put every part of a network into evaluation mode, and back into the mode that it was in."""
    parts = list(network.modules())
    modes = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on packages that it would also know, and on its own parts, to itself."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _reason(failure: BaseException) -> str:
    while failure.__cause__ is not None:
        failure = failure.__cause__
    text = str(failure).strip()
    return text.splitlines()[0][:200] if text else type(failure).__name__


def _packages() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as failure:
        raise MissingExtraError(
            f"An export needs the packages onnx, onnxscript and onnxruntime ({failure}). Install them: pip install 'latlas[onnx]'."
        ) from failure
    return onnxruntime
