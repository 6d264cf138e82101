"""What people did with products -> the directions in which people differ. Nothing of it is about one person or product.

P products, K numbers of each, n products that a person met.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

#: people that are listened to: bounds the time
LISTENED: Final = 2_000
#: products that a person must have met: of fewer, hardly anybody can tell what they have in common
FEW: Final = 60
#: such people that there must be
FEWEST: Final = 20
#: rounds of the search: after more, directions are found in what was chance (NDCG does not rise any more)
ROUNDS: Final = 2
#: variance of what a person does that no taste explains, to begin with: that of a click where one in five is
NOISE: Final = 0.16
#: people at a time: bounds the memory
TOGETHER: Final = 100

#: the products that a person met [n] as rows, and what was done with each less what was expected [n]
Met = tuple[Sequence[int], Sequence[float]]


def stretch(vectors: Tensor, met: Sequence[Met]) -> Tensor:
    """vectors [P, K] -> the square matrix [K, K] by which they are multiplied so that people's tastes, as directions in
    them, are as likely one way as any other: what tells people apart gets long, what nobody minds gets short. The unit
    matrix if too few have met enough.

    The covariance of the coefficients of a regression with random effects (Laird and Ware 1982, doi:10.2307/2529876) by
    expectation and maximisation. With it, the ridge regression of `serving/users.py` expects of a person what people
    are like.
    """
    found = torch.eye(vectors.shape[1], dtype=torch.float64)
    people = [one for one in met if len(one[0]) >= FEW]
    people = people[:: -(-len(people) // LISTENED) or 1]
    if len(people) < FEWEST:
        return found.to(vectors.dtype)
    rows, residuals, there = _padded(people)
    noise = NOISE
    for _ in range(ROUNDS):
        stretched = vectors.double() @ found
        spread, left = torch.zeros_like(found), 0.0
        for first in range(0, len(people), TOGETHER):
            some = slice(first, first + TOGETHER)
            seen = stretched[rows[some]] * there[some].unsqueeze(2)
            of_some, left_of_some = _expected(seen, residuals[some] / noise**0.5)
            spread += of_some
            left += left_of_some
        noise *= left / float(there.sum())
        sizes, directions = torch.linalg.eigh(spread / len(people))
        found = found @ (directions * sizes.sqrt())
    return found.to(vectors.dtype)


def _expected(seen: Tensor, residuals: Tensor) -> tuple[Tensor, float]:
    """seen [B, n, K], residuals [B, n] of unit noise, zeros where nothing is -> the sum over people of the second
    moment of their tastes [K, K], and of the squares that these leave."""
    people, count, width = seen.shape
    alike = seen @ seen.transpose(1, 2) + torch.eye(count, dtype=seen.dtype)
    root = torch.linalg.cholesky(alike)
    weights = torch.cholesky_solve(residuals.unsqueeze(2), root)
    tastes = (seen.transpose(1, 2) @ weights).squeeze(2)
    told = torch.linalg.solve_triangular(root, seen, upper=False).flatten(0, 1)
    unsure = people * torch.eye(width, dtype=seen.dtype) - told.T @ told
    # of a padded row the inverse has a one, which is taken off again
    doubt = count - torch.diagonal(torch.cholesky_inverse(root), dim1=1, dim2=2).sum(1)
    return unsure + tastes.T @ tastes, float(weights.square().sum() + doubt.sum())


def _padded(people: Sequence[Met]) -> tuple[Tensor, Tensor, Tensor]:
    """[B, n] rows, residuals, and 1 where something is."""
    most = max(len(rows) for rows, _ in people)
    rows = torch.zeros(len(people), most, dtype=torch.long)
    residuals, there = torch.zeros(2, len(people), most, dtype=torch.float64)
    for place, (products, done) in enumerate(people):
        rows[place, : len(products)] = torch.as_tensor(products)
        residuals[place, : len(products)] = torch.as_tensor(done, dtype=torch.float64)
        there[place, : len(products)] = 1
    return rows, residuals, there
