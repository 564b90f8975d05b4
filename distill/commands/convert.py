"""``distill convert``: write a weight file that says what it holds."""

from pathlib import Path

import torch

from distill.commands.evaluate import load_network
from distill.errors import DistillError
from distill.targets.teacher import Network
from distill.weights.files import Triple, encode_weights
from manifests.support.files import describe_os_error, is_plain, write_atomically


def convert(
    path: Path, out: Path, arch: str | None, mean: Triple | None, std: Triple | None, bn_eps: float | None = None
) -> Network:
    """Write the network of a weight file to ``out``, with its architecture, its classes and its normalization.

    ``bn_eps`` is that of its batch norms, if it was not trained with the architecture's default.
    """
    if out.suffix != ".safetensors":
        raise DistillError(f"{out}: expected a name that ends in .safetensors, because that is what is written")
    network = load_network(path, arch, mean, std, torch.device("cpu"), bn_eps)
    data = encode_weights(network.model, network)
    try:
        if not out.exists():
            write_atomically(out, data)
        elif not is_plain(out) or out.read_bytes() != data:
            raise DistillError(f"{out}: exists and is something else; remove it, or choose another --out")
    except OSError as error:
        raise DistillError(f"{describe_os_error(error, out)}; choose another --out") from error
    return network
