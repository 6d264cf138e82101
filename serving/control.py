"""Triton's model control: have it read a model's folder again. The versions it holds go on answering meanwhile."""

from collections.abc import Iterable

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from serving.errors import ScorerUnavailable, ServingError
from serving.settings import ServingSettings

#: a model imports torch and proves itself on an example before it answers
LOAD_TIMEOUT_S = 120.0


def load(settings: ServingSettings, models: Iterable[str]) -> None:
    """Load models from their folders, one after the other; a model that fails goes on as it was.

    Raises ServingError with the server's reason, ScorerUnavailable when it cannot be reached.
    """
    client = InferenceServerClient(
        settings.triton,
        ssl=settings.triton_tls,
        root_certificates=_name(settings.triton_tls_ca),
        private_key=_name(settings.triton_tls_key),
        certificate_chain=_name(settings.triton_tls_certificate),
    )
    try:
        for model in models:
            client.load_model(model, client_timeout=LOAD_TIMEOUT_S)
    except InferenceServerException as error:
        if error.status() == "StatusCode.UNAVAILABLE":
            raise ScorerUnavailable(f"no Triton answers at {settings.triton}") from error
        raise ServingError(f"Triton at {settings.triton} cannot load {model}: {error.message()}") from error
    finally:
        client.close()


def _name(path: object) -> str | None:
    return None if path is None else str(path)
