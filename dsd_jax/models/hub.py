"""Download of a pipeline in diffusers layout from the Hugging Face hub, into the client's cache.

Only JSON, the tokenizer and safetensors are fetched, never pickles. Of a network's weights one kind
is taken: the variant fp16 or bf16 if the repository has it, which halves the download.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from dsd_jax.models import weights, zero123
from dsd_jax.models.networks import Networks
from dsd_jax.models.tensor_files import shards
from dsd_jax.models.tokenizer import has_tokenizer, read_tokenizer
from dsd_jax.models.weights import weights_file, weights_names

_ID = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]*/[A-Za-z0-9](?:[\w.-]*\w)?", re.ASCII)
_REQUIRED = ("model_index.json", "scheduler/scheduler_config.json")
_OPTIONAL = re.compile(r"tokenizer/[^/]+\.(?:json|txt)|words\.json")

_TIMEOUT = 10.0  # seconds until the hub counts as not to be reached


def is_repo_id(name: str) -> bool:
    """Whether a name has the form of the hub's repositories, owner/name."""
    return bool(_ID.fullmatch(name))


def fetch(repo_id: str, revision: str | None = None, pose: str | None = None) -> Path:
    """The folder of a repository in the hub's cache, complete for `weights.load_pipeline`.

    Or for `zero123.load_folder`, if it has an image encoder and no text encoder.
    Configurations come first, so that a network that is not supported costs no long download.
    When the hub cannot be reached, or HF_HUB_OFFLINE is set, the cache serves alone.

    Args:
        repo_id: "owner/name".
        revision: branch, tag or commit; None is the default branch.
        pose: as in `zero123.pose_of`.

    Raises:
        ValueError: no such repository or revision, access not granted, not a pipeline that is
            supported, without safetensors, or the download failed.
        FileNotFoundError: the hub cannot be reached and the cache does not hold the pipeline.
    """
    from huggingface_hub import HfApi

    try:
        with _refusals_in_one_line(repo_id, revision):
            info = HfApi().model_info(repo_id, revision=revision, timeout=_TIMEOUT)
    except _failures() as error:
        return _cached(repo_id, revision, error)
    names = [file.rfilename for file in info.siblings or ()]
    takes_image = zero123.is_image_model(names)
    required = _required(takes_image)
    chosen = _choose_weights(repo_id, names, required, _parts(takes_image, names))
    inside = [name.removeprefix("tokenizer/") for name in names if name.startswith("tokenizer/")]
    if not takes_image and not has_tokenizer(inside):
        raise ValueError(
            f"{repo_id} has no tokenizer: neither tokenizer/tokenizer.json nor vocab.json and "
            "merges.txt"
        )
    small = [name for name in names if name in required or _OPTIONAL.fullmatch(name)]
    indices = [name for name in chosen if name.endswith(".json")]
    folder = _download(repo_id, revision, small + indices)
    try:
        (zero123 if takes_image else weights).read_networks(folder)
        weights.read_scheduler(folder)
        if takes_image:
            zero123.pose_of(folder, pose)
        else:
            read_tokenizer(folder / "tokenizer")
    except ValueError as error:
        raise ValueError(str(error).replace(str(folder), repo_id)) from None
    large = [
        f"{name.partition('/')[0]}/{shard.name}"
        for name in chosen
        for shard in shards(folder / name)
    ]
    return _download(repo_id, revision, small + indices + large)


def fetch_index(repo_id: str, revision: str | None = None) -> Path:
    """The cache's folder of a repository with its model_index.json, if it has one.

    Raises ValueError as `fetch`, and where the hub cannot be reached and the cache has none.
    """
    return _download(repo_id, revision, ["model_index.json"])


def _required(takes_image: bool) -> tuple[str, ...]:
    """Names of the small files that a repository has to have."""
    networks = (zero123.ImageNetworks if takes_image else Networks)._fields
    configs = (f"{part}/config.json" for part in networks)
    return (*_REQUIRED, *configs)


def _parts(takes_image: bool, names: list[str]) -> tuple[str, ...]:
    """The folders that hold weights, of a repository or folder with files of these names."""
    if not takes_image:
        return Networks._fields
    return (*zero123.ImageNetworks._fields, zero123.projection_of(names))


def _choose_weights(repo_id: str, names: list[str], required, parts) -> list[str]:
    """The safetensors file, or the index of shards, of each part among a repository's files.

    Raises ValueError for a file that is missing.
    """
    for name in required:
        if name not in names:
            raise ValueError(
                f"{repo_id} is not of the Stable Diffusion family in diffusers layout: "
                f"it has no {name}"
            )
    chosen = []
    for part in parts:
        found = [name for name in weights_names(part, half_first=True) if name in names]
        if not found:
            raise ValueError(
                f"{repo_id} has no safetensors for its {part}, and pickles can run code and are "
                f"not read; convert: hf download {repo_id} --local-dir FOLDER, then python "
                "experiments/tools/convert_weights.py FOLDER NEW_FOLDER, and pass NEW_FOLDER"
            )
        chosen.append(found[0])
    return chosen


def _download(repo_id: str, revision: str | None, names: list[str]) -> Path:
    """The cache's folder with (at least) these files."""
    from huggingface_hub import snapshot_download

    try:
        with _refusals_in_one_line(repo_id, revision):
            return Path(snapshot_download(repo_id, revision=revision, allow_patterns=names))
    except _failures() as error:
        raise ValueError(f"{repo_id} could not be downloaded: {_first_line(error)}") from error


def _cached(repo_id: str, revision: str | None, reason: Exception) -> Path:
    """The cache's folder of a repository that cannot be listed because of `reason`."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(
                repo_id,
                revision=revision,
                allow_patterns=["model_index.json"],
                local_files_only=True,
            )
        )
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
        for part in _parts(zero123.is_image_model(names), names):
            for shard in shards(weights_file(folder, part)):
                if not shard.is_file():
                    raise FileNotFoundError(shard)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{repo_id!r} is no folder, and as a repository of the hub it is not, or not wholly, "
            f"in the cache; the hub cannot be reached: {_first_line(reason)}"
        ) from reason
    return folder


def _failures() -> tuple[type[Exception], ...]:
    """What a call to the hub raises when there is no connection, or a server error.

    The HTTP library, whose errors come through, differs between versions of the client.
    """
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, *HfHubHTTPError.__bases__)


@contextlib.contextmanager
def _refusals_in_one_line(repo_id: str, revision: str | None) -> Iterator[None]:
    """Turns the hub's answers that no second try changes into ValueErrors of one line."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError:
        raise ValueError(
            f"{repo_id} is gated: accept its licence on its page of the hub, then log in with: "
            "hf auth login"
        ) from None
    except RepositoryNotFoundError:
        raise ValueError(
            f"{repo_id!r} is neither a folder nor a repository of the hub that you may read "
            "(for a private one log in with: hf auth login)"
        ) from None
    except RevisionNotFoundError:
        raise ValueError(f"{repo_id} has no revision {revision or 'main'!r}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
