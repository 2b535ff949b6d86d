"""A model without some of its latent variables: a smaller network of the same architecture, or the model with constants in their place."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from latlas.base.errors import CapabilityError, CodeShapeError
from latlas.base.provenance import UNSTATED, Provenance, tensor_hash
from latlas.base.shapes import Codes, Images, ImageShape, LatentShape, PerVariable
from latlas.models.architectures.surgery import Cut, Prunable
from latlas.models.protocols import (
    Autoencoder,
    CodeScale,
    LatentModel,
    Posterior,
    check_codes,
    configured_scale,
    device_of,
    require_autoencoder,
    require_generator,
    scaling_of,
)
from latlas.models.vae import VAE


def prunes_to_a_network(model: LatentModel) -> bool:
    """Tell whether `without_variables` gives a smaller network of the same architecture, which can be written to a folder."""
    return isinstance(model, VAE) and isinstance(model.architecture, Prunable)


def without_variables(
    model: LatentModel,
    *,
    kept: Sequence[int],
    constants: PerVariable,
    name: str | None = None,
    provenance: Provenance | None = None,
) -> "VAE | PinnedModel":
    """Return a model whose codes are the kept variables of another's, and which decodes as that does with the rest at constants.

    Of a VAE that latlas trained it is a smaller VAE: the rows that make the other variables go, and what these contribute as
    constants is folded into the layer that takes codes, in float64. Of anything else it is a `PinnedModel`.

    Args:
        model: encodes and decodes; it is not changed.
        kept: variables, ascending; channels of a spatial latent space.
        constants: one for each variable of the model, the same at every position; those of kept ones are of no account.
        name: of the new model; None: the model's, and "pruned".
        provenance: of the new model.

    Raises:
        CapabilityError: the model lacks an encoder or a decoder.
        SettingError: no variable is kept, one is named twice, or one is not there.
        CodeShapeError: another number of constants than of variables.
    """
    autoencoder = require_autoencoder(model, "Pruning")
    cut = Cut(kept=tuple(kept), constants=constants)
    if cut.variables != model.latent_shape[0]:
        raise CodeShapeError(f"{model.name} has {model.latent_shape[0]} latent variables, got {cut.variables} constants.")
    called = name if name is not None else f"{model.name}, pruned"
    if not isinstance(model, VAE) or not isinstance(model.architecture, Prunable):
        return PinnedModel(autoencoder, cut, name=called, provenance=provenance)
    built, weights = model.architecture.pruned(model.state_dict(), cut)
    with torch.random.fork_rng(devices=[]):  # the first weights of a network are drawn, and these are replaced
        pruned = VAE(built, model.image_shape, name=called, provenance=provenance)
    pruned.load_state_dict(weights)
    return pruned.to(device_of(model))


class PinnedModel(nn.Module):
    """Any model seen through some of its latent variables, the others being held at constants; exact whatever the model is.

    Nothing of the model becomes smaller but its codes, and it cannot be written to a folder.

    Args:
        base: encodes and decodes.
        cut: what remains of its variables.
        name: what reports call it.
        provenance: what it was made from.
    """

    kept: Tensor
    constants: Tensor

    def __init__(self, base: Autoencoder, cut: Cut, *, name: str, provenance: Provenance | None = None) -> None:
        super().__init__()
        self.base = base
        self.name = name
        self.provenance = provenance
        self.image_shape: ImageShape = base.image_shape
        self.latent_shape: LatentShape = (len(cut.kept), *base.latent_shape[1:])
        self.lacks: frozenset[str] = frozenset(getattr(base, "lacks", ()))
        if not callable(getattr(base, "sample_codes", None)):
            self.lacks |= {"sample_codes"}
        self.register_buffer("kept", torch.tensor(cut.kept))
        self.register_buffer("constants", cut.constants.float())

    def encode(self, images: Images) -> Posterior:
        """Return the posterior of each image, of the kept variables."""
        posterior = self.base.encode(images)
        log_variance = posterior.log_variance
        return Posterior(self._kept_of(posterior.mean), None if log_variance is None else self._kept_of(log_variance))

    def decode(self, codes: Codes) -> Images:
        """Return the image of each code, in [0, 1].

        Raises:
            CodeShapeError: codes of another latent space, as those of the model that this was made from.
        """
        check_codes(codes, self)
        constants = self.constants.to(codes).reshape(1, -1, *[1] * (codes.ndim - 2))
        whole = constants.expand(codes.shape[0], -1, *codes.shape[2:])
        return self.base.decode(whole.index_copy(1, self.kept.to(codes.device), codes))

    def sample_codes(self, n: int, generator: torch.Generator) -> Codes:
        """Return the kept variables of codes that the model draws.

        Raises:
            CapabilityError: it draws none.
        """
        if "sample_codes" in self.lacks:
            raise CapabilityError(f"Nothing is known of the prior of {self.name}. Fit a sampler to its codes.")
        return self._kept_of(require_generator(self.base, "Sampling").sample_codes(n, generator))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the model's fingerprint and of the cut; "unstated" where that is."""
        if self.base.fingerprint == UNSTATED:
            return UNSTATED
        told = torch.tensor(list(self.base.fingerprint.encode()), dtype=torch.uint8)
        return tensor_hash(self.kept, self.constants, told)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return device_of(self.base)

    @property
    def scaling(self) -> str | None:
        """Which latents of the model these are: "raw", "scaled", or None where it does not say."""
        return scaling_of(self.base)

    @property
    def scale(self) -> CodeScale | None:
        """The normalisation that the model states for its kept variables, or None."""
        scale = configured_scale(self.base)
        if scale is None:
            return None
        kept = self.kept.tolist()
        shares = {
            part: tuple(values[i] for i in kept) if len(values) > 1 else values
            for part, values in (("factor", scale.factor), ("shift", scale.shift))
        }
        return replace(scale, **shares)

    def _kept_of(self, codes: Tensor) -> Tensor:
        return codes.index_select(1, self.kept.to(codes.device))
