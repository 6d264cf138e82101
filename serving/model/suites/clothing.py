"""What class a photograph is of: the image tower with a linear classifier on its vector, trained end to end."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from feature_repo.views import EMBEDDING_DIM
from serving.datasets import clothing
from serving.datasets.clothing import Clothing, Photo
from serving.model.config import DEFAULT
from serving.model.encoders.image import ImageEncoder
from serving.model.metrics import Doubles, interval
from serving.model.suites.asking import Asking
from serving.model.suites.rows import Finding, Row, quality
from serving.preprocess import decode_image

FOLDER: Final = "clothing_cc0"
EPOCHS: Final = 40
#: epochs without a better validation accuracy after which training ends
PATIENCE: Final = 8
BATCH: Final = 64
LEARNING_RATE: Final = 2e-3
WEIGHT_DECAY: Final = 0.05
SMOOTHING: Final = 0.1
#: how much larger than unit vectors the classifier's inputs are
SCALE: Final = 8.0
#: of a side, by how much a picture is moved at most
MOVED: Final = 0.12
#: brightness and contrast are multiplied by 1 +- this at most
RELIT: Final = 0.2

Pixels = NDArray[np.uint8]


class Classifier(nn.Module):
    """The image tower as it serves, and one linear layer on its unit vector [D]."""

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        self.tower = ImageEncoder(size)
        self.out = nn.Linear(EMBEDDING_DIM, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels [N, S, S, 3] uint8 -> logits [N, classes]"""
        logits: Tensor = self.out(SCALE * self.tower(pixels))
        return logits


def measure(asking: Asking) -> Finding:
    """Accuracy on the test split of the epoch that was best on the validation split."""
    found = clothing.load(asking.folder(FOLDER))
    size = DEFAULT.image_size
    rights = np.stack([_trained(found, size, seed, asking) for seed in range(asking.seeds)])
    labels = np.array([photo.label for photo in found.train])
    asked = np.array([photo.label for photo in found.test])
    most_frequent = float(np.mean(asked == np.bincount(labels).argmax()))
    blurred = _nearest_mean(found, size, asked)
    by_class = rights.mean(0)
    rows = [
        Row("the most frequent class", most_frequent),
        Row("nearest class mean of 8 x 8 pixels", blurred, floor=most_frequent),
        quality("image tower + linear classifier", interval(rights), floor=most_frequent, peer=blurred),
    ]
    rows += [
        Row(f"of these, {name}", float(by_class[asked == label].mean()), floor=float(np.mean(asked == label)))
        for label, name in enumerate(found.classes)
    ]
    return Finding(
        "clothing",
        "Clothing photographs: class accuracy of the image tower",
        tuple(rows),
        (
            f"Share of {len(found.test)} test photographs whose class is right, of {len(found.classes)} classes; "
            f"{len(found.train):,} were learned from, at {size} x {size} pixels, from nothing; mean of {asking.seeds} "
            "trainings, each ended by the validation split; spread: 95 %.",
            "Floor of a class: its share of the test photographs, what always saying it gets right.",
        ),
    )


def _trained(found: Clothing, size: int, seed: int, asking: Asking) -> Doubles:
    """[test photographs] 1 where the class is right."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    train, labels = _pixels(found.train, size), torch.tensor([photo.label for photo in found.train])
    net = Classifier(len(found.classes), size)
    epochs = 1 if asking.quick else EPOCHS
    optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = epochs * -(-len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    best, kept, since = -1.0, {}, 0
    validation = _pixels(found.validation, size)
    wanted = np.array([photo.label for photo in found.validation])
    for epoch in range(epochs):
        asking.tell(f"training {seed + 1} of {asking.seeds}", epoch, epochs)
        net.train()
        for some in torch.split(torch.randperm(len(train)), BATCH):
            loss = F.cross_entropy(net(_varied(train[some])), labels[some], label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        share = float(np.mean(_classes(net, validation) == wanted))
        since += 1
        if share > best:
            best, since = share, 0
            kept = {name: value.clone() for name, value in net.state_dict().items()}
        if since == PATIENCE and epoch > epochs // 2:
            break
    asking.tell(f"training {seed + 1} of {asking.seeds}", epochs, epochs)
    net.load_state_dict(kept)
    asked = np.array([photo.label for photo in found.test])
    right: Doubles = (_classes(net, _pixels(found.test, size)) == asked).astype(np.float64)
    return right


def _varied(pixels: Tensor) -> Tensor:
    """The same pictures [N, S, S, 3] uint8 as another photographer would have taken them: mirrored, moved, relit."""
    size = pixels.shape[1]
    planes = pixels.permute(0, 3, 1, 2).float()
    mirrored = torch.rand(len(planes), 1, 1, 1) < 0.5
    planes = torch.where(mirrored, planes.flip(3), planes)
    margin = round(size * MOVED)
    padded = F.pad(planes, [margin] * 4, mode="replicate")
    top, left = (int(n) for n in torch.randint(0, 2 * margin + 1, (2,)))
    planes = padded[:, :, top : top + size, left : left + size]
    brightness, contrast = (1 + RELIT * (2 * torch.rand(2, len(planes), 1, 1, 1) - 1)).unbind(0)
    middle = planes.mean((1, 2, 3), keepdim=True)
    return (((planes - middle) * contrast + middle) * brightness).clamp(0, 255).byte().permute(0, 2, 3, 1)


def _classes(net: Classifier, pixels: Tensor) -> NDArray[np.int64]:
    """[N] the likeliest class of each."""
    net.eval()
    with torch.inference_mode():
        found: NDArray[np.int64] = torch.cat([net(some).argmax(1) for some in torch.split(pixels, BATCH)]).numpy()
    return found


def _nearest_mean(found: Clothing, size: int, asked: NDArray[np.int64]) -> float:
    """Accuracy of no learning at all: the class whose mean thumbnail is nearest."""
    learned, tested = (_thumbnails(_pixels(photos, size)) for photos in (found.train, found.test))
    labels = torch.tensor([photo.label for photo in found.train])
    means = torch.stack([learned[labels == label].mean(0) for label in range(len(found.classes))])
    nearest = torch.cdist(tested, means).argmin(1).numpy()
    return float(np.mean(nearest == asked))


def _thumbnails(pixels: Tensor) -> Tensor:
    """[N, 8 * 8 * 3]"""
    return F.adaptive_avg_pool2d(pixels.permute(0, 3, 1, 2).float(), 8).flatten(1)


def _pixels(photos: Sequence[Photo], size: int) -> Tensor:
    """[N, S, S, 3] uint8"""
    return torch.from_numpy(np.stack([decode_image(photo.image, size=size) for photo in photos]))
