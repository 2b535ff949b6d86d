"""What the posts and papers report, figure by figure, as it stands there. Nothing of ours is in this file."""

from dataclasses import dataclass

# How sure we are of a published figure.
READ = "number in the post"
SAID = "words in the post, no number"
DERIVED = "computed from the post's numbers"
CODE = "read-me of the published code"
FORMULA = "formula in the post"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One published figure.

    Args:
        what: in words.
        published: as it stands there.
        source: how sure we are of it: it begins with one of the words above.
        page: where it is explained, from docs/reproductions.
    """

    what: str
    published: str
    source: str
    page: str


# post: key of the figure, under which reproductions.py has ours: the figure
POSTS: dict[str, dict[str, Figure]] = {
    "About the Kullback-Leibler divergence (2018)": {
        "ten digits": Figure(
            what="posterior variance of ten digits, first epoch of a 2-variable VAE",
            published="close to 1, then rapidly very small",
            source=SAID,
            page="trajectories.md",
        ),
        "sixty digits": Figure(
            what="the same of sixty digits over ten epochs",
            published="really small, and decreasing further",
            source=SAID,
            page="trajectories.md",
        ),
        "cloud": Figure(
            what="cloud of codes in three variables, with sampling against without",
            published="much more regular",
            source=SAID,
            page="latent-cloud.md",
        ),
        "drawn digits": Figure(
            what="digits drawn from the prior, with sampling against without",
            published="drastically better",
            source=SAID,
            page="latent-cloud.md",
        ),
    },
    "Sparsity in Variational Autoencoders (2019)": {
        "collapsed, dense": Figure(
            what="collapsed variables, dense 784-256-64-32-16",
            published="8 of 16",
            source=READ,
            page="sparsity.md",
        ),
        "collapsed, conv": Figure(
            what="collapsed variables, convolutional",
            published="3 of 16",
            source=f"{READ}; layers shown as a picture only",
            page="sparsity.md",
        ),
        "without the KL": Figure(
            what="without the KL term, or with its quadratic part alone",
            published="no collapse",
            source=SAID,
            page="sparsity.md",
        ),
        "set to 0": Figure(
            what="collapsed variables set to 0",
            published="images indistinguishable",
            source=SAID,
            page="pruning.md",
        ),
        "noise": Figure(
            what="noise on one variable: KL up, gain below KL, collapse, delayed and partial return",
            published="in this order",
            source=f"{SAID}; no schedule",
            page="noise-injection.md",
        ),
    },
    "A stationary condition (2019)": {
        "least KL": Figure(
            what="variance of least KL at a fixed ratio ρ",
            published="ρ² / (1 + ρ²)",
            source=FORMULA,
            page="kl-curve.md",
        ),
        "law, dense": Figure(
            what="variance law, dense net",
            published="0.961 to 1.033, mean 0.994",
            source=DERIVED,
            page="variance-law.md",
        ),
        "law, conv": Figure(
            what="variance law, convolutional net",
            published="0.912 to 1.403, mean 1.078",
            source=f"{DERIVED}; two numbers of one row run together",
            page="variance-law.md",
        ),
        "law, tour": Figure(
            what="variance law of a sparse dense VAE, mean over variables",
            published="1",
            source=FORMULA,
            page="variance-law.md",
        ),
    },
    "Loss of variance (2020)": {
        "two errors": Figure(
            what="squared error and variance loss, 784-256-2, 50 epochs",
            published="0.0413 and 0.0411",
            source=READ,
            page="../concepts/variance-loss.md",
        ),
        "line": Figure(
            what="variance loss against squared error over architectures",
            published="about equal",
            source=f"{SAID}; a scatter plot",
            page="../concepts/variance-loss.md",
        ),
        "sign": Figure(
            what="sign of the variance loss",
            published="always positive",
            source=SAID,
            page="../concepts/variance-loss.md",
        ),
    },
    "Calibrating VAEs (2020)": {
        "balance": Figure(
            what="a balance that follows the error",
            published="the best results of a VAE at its time",
            source=SAID,
            page="../concepts/balance.md",
        ),
        "renormalised": Figure(
            what="renormalising a second stage",
            published="a remarkable gain in FID",
            source=SAID,
            page="../concepts/samplers.md",
        ),
        "Split-VAE, MNIST": Figure(
            what="Split-VAE, MNIST, FID of another Inception network",
            published="7.47",
            source=f"{CODE}; how it was sampled is not said",
            page="../concepts/samplers.md",
        ),
        "Split-VAE, CelebA": Figure(
            what="Split-VAE, CelebA 64, FID of another Inception network",
            published="35.1 (earlier: 35.5)",
            source=f"{CODE}; how it was sampled is not said",
            page="../concepts/samplers.md",
        ),
    },
    "Comparing latent spaces, 1 (2022)": {
        "type 1": Figure(
            what="type 1, two trainings of one model: a linear map",
            published="almost identical images",
            source=SAID,
            page="../concepts/maps.md",
        ),
        "type 2": Figure(
            what="type 2, VAE and Split-VAE",
            published="most of the information kept",
            source=SAID,
            page="../concepts/maps.md",
        ),
        "type 3": Figure(
            what="type 3, GAN and VAE",
            published="most of the information kept",
            source=SAID,
            page="../concepts/maps.md",
        ),
        "type 3, W": Figure(
            what="type 3, the W space of a StyleGAN and a VAE",
            published="astonishingly similar images",
            source=SAID,
            page="../concepts/maps.md",
        ),
    },
    "Comparing latent spaces, 2: Support Set (2022)": {
        "few images": Figure(
            what="a Support Set is enough to fit the map",
            published="128 images and a few more for 150 variables",
            source=READ,
            page="../concepts/maps.md",
        ),
        "a handful": Figure(
            what="only a handful of variables is informative",
            published="7 of 150 taken",
            source=READ,
            page="../concepts/support-sets.md",
        ),
        "spread": Figure(
            what="spread of a Support Set over that of random images",
            published="0.183 / 0.116 = 1.58 (CelebA)",
            source=f"{READ}; ratio computed from the post's numbers; threshold not given",
            page="../concepts/support-sets.md",
        ),
        "unevenness": Figure(
            what="how evenly sectors are inhabited",
            published="far from uniform",
            source=SAID,
            page="../concepts/support-sets.md",
        ),
    },
    "Comparing latent spaces, 3: generative range (2022)": {
        "inversion": Figure(
            what="squared error of inversion: own samples, and Support Set",
            published="0.026 and 0.251 (CelebA-HQ StyleGAN)",
            source=f"{READ}; probably pixels in [-1, 1], a quarter of that in [0, 1]",
            page="../concepts/range.md",
        ),
        "descent": Figure(
            what="descent through the generator instead of a recoder",
            published="the same verdict",
            source=SAID,
            page="../concepts/range.md",
        ),
        "hats": Figure(
            what="people with hats are outside a GAN's range",
            published="outside, or severely underrepresented",
            source=SAID,
            page="../concepts/range.md",
        ),
    },
}
