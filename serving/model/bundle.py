"""Weights in safetensors files, with what belongs to them in the file's own header; the bundle that is committed.

Each model is one file `weights.safetensors` beside its model.py. The ranker's header also carries the hash of the
order of its inputs, the price weight of degraded rankings and the metrics of its training, so they cannot part.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from safetensors import SafetensorError, safe_open

from feature_repo.events import Bundle
from feature_repo.views import input_hash
from serving.errors import BundleMismatch, ServingError
from serving.model.config import ModelConfig, config_from_header
from serving.requests import MODELS

if TYPE_CHECKING:
    from torch import nn

#: the tracked model repository; commands serve a copy of it
REPOSITORY: Final = Path(__file__).resolve().parents[2] / "model_repository"
WEIGHTS: Final = "weights.safetensors"
BUNDLE_NAME: Final = "default"
#: a safetensors file begins with the length of its header, a little-endian integer
HEADER_LENGTH_BYTES: Final = 8


def save(module: "nn.Module", file: Path, config: ModelConfig, header: Mapping[str, str]) -> None:
    """Write the weights of a module, and its header with its configuration and the hash of the ranker's inputs."""
    from safetensors.torch import save_file

    save_file(module.state_dict(), file, {"input_hash": input_hash(), "config": config.to_json(), **header})
    _order_header(file)
    file.chmod(0o644)  # safetensors writes for the owner only; the server may be another user


def _order_header(file: Path) -> None:
    """Facts by name: safetensors leaves their order to chance, and the same weights are to be the same bytes."""
    data = file.read_bytes()
    tensors = HEADER_LENGTH_BYTES + int.from_bytes(data[:HEADER_LENGTH_BYTES], "little")
    header = json.loads(data[HEADER_LENGTH_BYTES:tensors])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % HEADER_LENGTH_BYTES)  # the tensors begin at a multiple of it
    file.write_bytes(len(text).to_bytes(HEADER_LENGTH_BYTES, "little") + text + data[tensors:])


def load(model: str, file: Path) -> "nn.Module":
    """The net of one of MODELS as its weights file configures it, with those weights, ready to answer.

    Raises BundleMismatch if they were trained for other inputs or for a net that this code does not have.
    """
    from safetensors.torch import load_file

    header = read_header(file)
    check_header(header, file)
    net = untrained(model, config_from_header(header))
    try:
        net.load_state_dict(load_file(file))
    except RuntimeError as error:
        raise BundleMismatch(f"{file} does not hold the weights of {model}: {error}") from error
    return net.eval()


def untrained(model: str, config: ModelConfig) -> "nn.Module":
    """The net of one of MODELS, before it has learned anything."""
    # a Triton process that serves one model imports the code of that one
    if model == "ranker":
        from serving.model.ranker import Ranker

        return Ranker(config)
    from serving.model.encoders import ProductEncoder, QueryEncoder

    return {"product_encoder": ProductEncoder, "query_encoder": QueryEncoder}[model](config)


def read_header(file: Path) -> dict[str, str]:
    """The header of a weights file, without reading the weights."""
    try:
        with safe_open(file, framework="numpy") as opened:
            return dict(opened.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ServingError(f"cannot read weights {file}: {error}") from error


def check_header(header: Mapping[str, str], file: Path) -> None:
    """Raise BundleMismatch unless the weights belong to the order of inputs that this code has."""
    if header.get("input_hash") != input_hash():
        raise BundleMismatch(
            f"{file} was trained for inputs {header.get('input_hash')}, this code has {input_hash()}: train again"
        )


def newest_version(repository: Path, model: str) -> int:
    """The highest version of a model in a repository; 0 when there is none."""
    folder = repository / model
    versions = (int(path.name) for path in folder.iterdir() if path.name.isdecimal()) if folder.is_dir() else ()
    return max(versions, default=0)


def weights_file(repository: Path, model: str, version: int | None = None) -> Path:
    """Where the weights of a version of a model are, of the newest by default."""
    return repository / model / str(version or newest_version(repository, model)) / WEIGHTS


def bundle_of(repository: Path, name: str = BUNDLE_NAME) -> Bundle:
    """The bundle of the newest versions in a repository."""
    file = weights_file(repository, "ranker")
    header = read_header(file)
    check_header(header, file)
    versions = {model: newest_version(repository, model) for model in MODELS}
    return bundle_from(header, versions, max(versions.values()), name)


def bundle_from(header: Mapping[str, str], models: dict[str, int], number: int, name: str = BUNDLE_NAME) -> Bundle:
    """Bundle `number` of these versions of the models; `header` is that of the ranker's weights."""
    return Bundle(
        bundle=name,
        version=number,
        models=models,
        input_hash=header["input_hash"],
        price_weight=float(header["price_weight"]),
        metrics=json.loads(header["metrics"]),
        scope=config_from_header(header).scope,
        click_rates=json.loads(header["click_rates"]),
    )


def default_bundle() -> Bundle:
    """The bundle of the committed models."""
    return bundle_of(REPOSITORY)
