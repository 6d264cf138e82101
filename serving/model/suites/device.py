"""Nets on a GPU: eager, compiled and as a CUDA graph, beside the roofline of what the machine was measured to do.

The roofline (Williams, Waterman & Patterson 2009) of a net is the least time in which its inputs and outputs can cross
the memory and its multiplications be done; nothing in between is counted, so it cannot be reached.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from feature_repo.views import MODALITIES
from serving.model.evaluate import Nets
from serving.model.suites.asking import Asking
from serving.model.suites.rows import Row
from serving.preprocess import ATTRIBUTE_NUMBERS
from serving.requests import ScoreRequest

ROWS: Final = (1_000, 10_000, 100_000)
PICTURES: Final = (64, 512, 4_096)
REPEATS: Final = 30
WARM_UP: Final = 5
#: of the square matrices whose product is timed
SIDE: Final = 8_192
#: of the block that is copied
COPIED_BYTES: Final = 1 << 30
TEXT_LENGTH: Final = 64
ATTRIBUTES: Final = 32

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Machine:
    """What a device was measured to do: bytes and floating-point operations per second."""

    bandwidth: float
    arithmetic: float

    def rows_per_s(self, rows: int, moved_bytes: int, operations: int) -> float:
        """At most so many rows a second of a call that moves and computes so much."""
        return rows / max(moved_bytes / self.bandwidth, operations / self.arithmetic)


def on_device(nets: Nets, asking: Asking) -> list[Row]:
    """Rows of the ranker and pictures of the product encoder, in every form."""
    device = torch.device("cuda")
    machine = measured(device)
    rows: list[Row] = []
    ranker, tower = nets.ranker.to(device), nets.product_encoder.to(device)
    for count in ROWS[: 1 if asking.quick else None]:
        asking.tell("ranker on the GPU", ROWS.index(count), len(ROWS))
        rows += _rows_of(
            f"ranker on the GPU, {count:,} rows a call", "rows/s", ranker, ranked(count, device), count, machine
        )
    for count in PICTURES[: 1 if asking.quick else None]:
        asking.tell("product encoder on the GPU", PICTURES.index(count), len(PICTURES))
        pictures = pictured(count, tower.image_size, device)
        name = f"product_encoder on the GPU, {count:,} pictures a call"
        rows += _rows_of(name, "pictures/s", tower, pictures, count, machine, graphed=False)
        name = f"its image tower, {count:,} pictures a call"
        rows += _rows_of(name, "pictures/s", tower.image, (pictures[2],), count, machine)
    return rows


def measured(device: torch.device) -> Machine:
    """By a copy and by a product of matrices, both in float32."""
    block = torch.empty(COPIED_BYTES // 4, device=device)
    other = torch.empty_like(block)
    matrix = torch.randn(SIDE, SIDE, device=device)
    copy_s, product_s = seconds(lambda: other.copy_(block), device), seconds(lambda: matrix @ matrix, device)
    return Machine(2 * COPIED_BYTES / copy_s, 2 * SIDE**3 / product_s)


def seconds(call: Call, device: torch.device) -> float:
    """Median time of a call on a device, once it is warm."""
    taken = []
    for number in range(WARM_UP + REPEATS):
        _wait(device)
        began = time.perf_counter()
        call()
        _wait(device)
        if number >= WARM_UP:
            taken.append(time.perf_counter() - began)
    return median(taken)


def ranked(rows: int, device: torch.device) -> tuple[Tensor, ...]:
    """The ranker's inputs, in the order of ScoreRequest."""
    from serving.model.suites.scoring import request_of

    asked = request_of(rows)
    return tuple(torch.from_numpy(getattr(asked, name)).to(device) for name in ScoreRequest.__slots__)


def pictured(rows: int, size: int, device: torch.device) -> tuple[Tensor, ...]:
    """The product encoder's inputs: products with text, attributes and a picture each, no video and no sound."""
    from serving.preprocess import prepare_products
    from serving.requests import ProductContent

    empty = prepare_products([ProductContent("nothing")], image_size=size).arrays()
    mask = torch.zeros(rows, len(MODALITIES))
    mask[:, [MODALITIES.index(name) for name in ("text", "image", "attributes")]] = 1
    made: dict[str, Tensor] = {
        "text_ids": torch.randint(1, 1_000, (rows, TEXT_LENGTH), dtype=torch.int32),
        "attribute_ids": torch.randint(1, 1_000, (rows, ATTRIBUTES), dtype=torch.int32),
        "attribute_numbers": torch.rand(rows, ATTRIBUTE_NUMBERS),
        "image": torch.randint(0, 256, (rows, size, size, 3), dtype=torch.uint8),
        "mask": mask,
    }
    return tuple(made.get(name, torch.from_numpy(values)).to(device) for name, values in empty.items())


def operations(net: nn.Module, inputs: Sequence[Tensor]) -> int:
    """Floating-point operations of the products of matrices and of the convolutions in a call."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net(*inputs)
    return int(counter.get_total_flops())


def moved(net: nn.Module, inputs: Sequence[Tensor]) -> int:
    """Bytes of the inputs and the output of a call."""
    with torch.inference_mode():
        output = net(*inputs)
    return sum(tensor.numel() * tensor.element_size() for tensor in (*inputs, output))


def graph(net: nn.Module, inputs: Sequence[Tensor]) -> Call:
    """The call as a CUDA graph: all kernels launched at once, on the same memory every time."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            net(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        net(*inputs)
    return captured.replay


def _rows_of(
    name: str,
    unit: str,
    net: Any,
    inputs: Sequence[Tensor],
    count: int,
    machine: Machine,
    *,
    graphed: bool = True,
) -> list[Row]:
    """Eager, compiled, and as a graph where no shape depends on the inputs' values."""
    device = inputs[0].device
    with torch.inference_mode():
        roofline = machine.rows_per_s(count, moved(net, inputs), operations(net, inputs))
        compiled: Any = torch.compile(net)
        forms: dict[str, Call] = {"eager": lambda: net(*inputs), "compiled": lambda: compiled(*inputs)}
        if graphed:
            forms["CUDA graph"] = graph(net, inputs)
        rates = {form: count / seconds(call, device) for form, call in forms.items()}
    return [
        Row(f"{name}, {form}", rate, unit, floor=None if form == "eager" else rates["eager"], peer=roofline)
        for form, rate in rates.items()
    ]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
