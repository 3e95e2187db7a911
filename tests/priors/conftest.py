"""A hub that holds one repository, owner/tiny, and the real client's cache of it."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import filter_repo_objects

ID = "owner/tiny"


class Hub:
    """One repository, and what was asked of it."""

    def __init__(self, repository: Path, cache: Path):
        self.repository, self.cache, self.fetched = repository, cache, []
        self.listing_error = self.download_error = None

    def names(self):
        files = (f for f in self.repository.rglob("*") if f.is_file())
        return sorted(f.relative_to(self.repository).as_posix() for f in files)

    def model_info(self, repo_id, *, revision, timeout):
        assert (repo_id, revision) == (ID, None)
        if self.listing_error:
            raise self.listing_error
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=n) for n in self.names()])

    def snapshot_download(self, repo_id, *, revision, allow_patterns):
        assert (repo_id, revision) == (ID, None)
        if self.download_error:
            raise self.download_error
        names = sorted(filter_repo_objects(self.names(), allow_patterns=allow_patterns))
        self.fetched.append(names)
        for name in names:
            (self.cache / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.repository / name, self.cache / name)
        return str(self.cache)


@pytest.fixture
def hub(tiny_prior_folder, tmp_path, monkeypatch):
    repository = Path(shutil.copytree(tiny_prior_folder, tmp_path / "repository"))
    shutil.rmtree(repository / "words")
    hub = Hub(repository, tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", hub.model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    return hub


@pytest.fixture
def cached(tiny_prior_folder, tmp_path, monkeypatch):
    """The repository as the real client keeps it; returns its folder."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "client"))
    kept = tmp_path / "client" / "models--owner--tiny"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    return Path(shutil.copytree(tiny_prior_folder, kept / "snapshots" / ("0" * 40)))
