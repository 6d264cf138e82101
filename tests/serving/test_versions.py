"""Exported weights in a repository: which versions belong together, and what a running Triton does with them."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from serving import control
from serving.errors import ScorerUnavailable, ServingError
from serving.model.bundle import REPOSITORY, read_header, weights_file
from serving.model.export import copy_repository, export
from serving.model.inprocess import InProcessScorer
from serving.model.versions import bundle_at, bundles, hold, versions
from serving.requests import MODELS
from serving.scorer import TritonScorer
from serving.settings import ServingSettings
from streams.local.triton_server import TritonServer
from tests.parts import TRITON_READY_TIMEOUT_S, running
from tests.serving.rankers import a_request


def changed_weights(folder: Path, *changed: str, by: float, repository: Path = REPOSITORY) -> Path:
    """The newest weights of a repository, those of some models a little different."""
    folder.mkdir()
    for model in MODELS:
        file = weights_file(repository, model)
        if model in changed:
            tensors = {name: np.asarray(tensor * np.float32(by)) for name, tensor in load_file(file).items()}
            save_file(tensors, folder / f"{model}.safetensors", read_header(file))
        else:
            shutil.copy(file, folder / f"{model}.safetensors")
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    copy_repository(tmp_path / "models")
    return tmp_path / "models"


def test_only_what_changed_gets_a_version(repository: Path, tmp_path: Path) -> None:
    assert export(changed_weights(tmp_path / "a", "ranker", by=1.1), repository)["ranker"] == 2
    assert export(changed_weights(tmp_path / "b", *MODELS, by=1.2), repository) == dict.fromkeys(MODELS, 3)
    assert export(tmp_path / "b", repository) == dict.fromkeys(MODELS, 3), "the same again is nothing new"
    assert versions(repository, "ranker") == [1, 2, 3]
    assert versions(repository, "query_encoder") == [1, 3]
    assert bundles(repository) == [1, 2, 3]
    assert bundle_at(repository, 2).models == {"product_encoder": 1, "query_encoder": 1, "ranker": 2}
    assert bundle_at(repository, 3).models == dict.fromkeys(MODELS, 3)
    with pytest.raises(ServingError, match=r"no bundle 4 in .*; there: 1, 2, 3"):
        bundle_at(repository, 4)


def test_a_bundle_needs_all_models(tmp_path: Path) -> None:
    assert bundles(tmp_path / "nothing") == []
    with pytest.raises(ServingError, match="there: none"):
        bundle_at(tmp_path / "nothing", 1)


def test_the_server_is_told_which_versions_to_hold(repository: Path, tmp_path: Path) -> None:
    export(changed_weights(tmp_path / "a", "ranker", by=1.1), repository)
    before = (repository / "ranker" / "config.pbtxt").read_text().splitlines()
    hold(repository, "ranker", {2, 1})
    after = (repository / "ranker" / "config.pbtxt").read_text().splitlines()
    assert [new for old, new in zip(before, after, strict=True) if old != new] == [
        "version_policy: { specific { versions: [ 1, 2 ] } }"
    ]
    with pytest.raises(ServingError, match="ranker has no version 7"):
        hold(repository, "ranker", {1, 7})
    assert sorted(path.name for path in repository.iterdir()) == sorted(MODELS), "nothing but models"


def test_a_triton_that_is_away() -> None:
    with pytest.raises(ScorerUnavailable, match=r"no Triton answers at 127\.0\.0\.1:9"):
        control.load(ServingSettings(triton="127.0.0.1:9"), ["ranker"])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ServingSettings]]:
    """A Triton of this file's own, and its repository."""
    folder = tmp_path_factory.mktemp("served")
    copy_repository(folder / "models")
    with running(TritonServer(folder / "models", MODELS, folder / "triton"), TRITON_READY_TIMEOUT_S) as server:
        yield folder / "models", ServingSettings(triton=server.address)


@pytest.mark.parts
async def test_no_request_is_dropped_while_versions_come_and_go(
    served: tuple[Path, ServingSettings], tmp_path: Path
) -> None:
    """Forward to 2, to 3, back to 1: who pins the version in force is answered all the time, and by that version."""
    repository, settings = served
    for number, factor in ((2, 1.1), (3, 1.2)):
        export(changed_weights(tmp_path / str(number), "ranker", by=factor), repository)
    request = a_request(20)
    here, there = InProcessScorer(repository), TritonScorer(settings.triton, score_timeout_s=10)
    want = {version: (await here.score(request, version)).logit for version in (1, 2, 3)}
    assert not np.allclose(want[1], want[2])
    in_force = 1
    answered = 0

    async def ask() -> None:
        nonlocal answered
        while True:
            got = await there.score(request, in_force)
            assert any(np.allclose(got.logit, logit, atol=1e-4) for logit in want.values())
            answered += 1

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    for newer in (2, 3, 1):
        hold(repository, "ranker", {in_force, newer})
        before = answered
        await asyncio.to_thread(control.load, settings, ["ranker"])
        assert answered > before, "answered while the server loads"
        in_force = newer
        got = await there.score(request, in_force)
        np.testing.assert_allclose(got.logit, want[in_force], atol=1e-4)
    assert not any(task.done() for task in asking), "nobody was refused"
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await there.close()


@pytest.mark.parts
async def test_a_version_that_cannot_load_leaves_the_old_ones(
    served: tuple[Path, ServingSettings], tmp_path: Path
) -> None:
    repository, settings = served
    broken = repository / "query_encoder" / "2"
    shutil.copytree(repository / "query_encoder" / "1", broken)
    (broken / "weights.safetensors").write_bytes(b"what is this")
    hold(repository, "query_encoder", {1, 2})
    with pytest.raises(ServingError, match=r"cannot load query_encoder: .*cannot read weights"):
        await asyncio.to_thread(control.load, settings, ["query_encoder"])
    scorer = TritonScorer(settings.triton)
    assert (await scorer.encode_queries(["still there"], version=1)).any()
    await scorer.close()
