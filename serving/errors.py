"""Errors of serving, named by what the pipeline must do.

* ServingError
  x ScorerUnavailable   publish degraded rankings, try again later
  x BundleMismatch      stop: model and code disagree about the order of the inputs
  x BadMedia            reject this one medium, encode the product without it
"""


class ServingError(Exception):
    """Root of everything that serving raises."""


class ScorerUnavailable(ServingError):
    """Triton is away, too slow, or has not loaded the model: the same call may succeed later."""


class BundleMismatch(ServingError):
    """The weights were trained for another order of the ranker's inputs than this code has."""


class BadMedia(ServingError):
    """A medium cannot be decoded within its limits. `product_id` and `modality` are there once they are known."""

    def __init__(self, reason: str, *, product_id: str | None = None, modality: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.product_id = product_id
        self.modality = modality
