"""Tell whether the environment is the one that latlas is developed in: no torchvision, no CUDA packages without a GPU."""

import shutil
import sys
from importlib.metadata import distributions
from importlib.util import find_spec


def main() -> int:
    """Print what is wrong, if anything; return 1 where latlas would not work, else 0."""
    if find_spec("torchvision") is not None:
        print(
            "torchvision is installed: beside a CPU-only torch it breaks `import torchmetrics`. Remove it: pip uninstall torchvision"
        )
        return 1
    names = {(distribution.metadata["Name"] or "").lower() for distribution in distributions()}
    cuda = sorted(name for name in names if name.startswith(("nvidia-", "cuda-")) or name == "triton")
    if cuda and shutil.which("nvidia-smi") is None:
        print(
            f"torch came with {len(cuda)} CUDA packages and this machine shows no GPU. It works, and takes gigabytes: "
            "to save them, make pip prefer the CPU build of torch (see docs/install.md), `make clean`, and try again."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
