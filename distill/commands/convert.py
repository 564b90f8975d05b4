"""``distill convert``: write a weight file that names its network, its classes and its normalization."""

from pathlib import Path

import torch

from distill.commands.evaluate import load_network
from distill.errors import DistillError
from distill.targets.teacher import Network
from distill.training.run_dir import explain_errors
from distill.weights.files import Triple, encode_weights
from manifests.support.files import is_plain, write_atomically


def convert(
    path: Path, out: Path, arch: str | None, mean: Triple | None, std: Triple | None, bn_eps: float | None = None
) -> Network:
    """Convert the file ``path`` to the file ``out`` with architecture, classes and normalization. Return the network.

    ``bn_eps`` is the epsilon that the batch norms were trained with, if it is not the default of the architecture.
    """
    if out.suffix != ".safetensors":
        raise DistillError(f"{out}: expected a file name that ends in .safetensors; choose another --out")
    network = load_network(path, arch, mean, std, torch.device("cpu"), bn_eps)
    data = encode_weights(network.model, network)
    with explain_errors(out, "run the same command again, or choose another --out"):
        if not out.exists():
            write_atomically(out, data)
        elif not is_plain(out) or out.read_bytes() != data:
            raise DistillError(f"{out}: a file with other content exists; remove it, or choose another --out")
    return network
