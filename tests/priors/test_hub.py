"""models/hub.py and load_prior: a repository of a hub that is only a folder, and every refusal."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import jax
import numpy as np
import pytest
from huggingface_hub import errors
from safetensors.numpy import load_file, save_file

from dsd_jax.models.hub import fetch, is_repo_id
from dsd_jax.models.weights import load_pipeline
from dsd_jax.priors import load_prior

ID = "owner/tiny"
UNET = "unet/diffusion_pytorch_model"
VAE = "vae/diffusion_pytorch_model"
TEXT = "text_encoder/model"
SMALL = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "vae/config.json",
    "words.json",
]
OFFLINE = errors.OfflineModeIsEnabled("Cannot reach the hub: offline mode is enabled.")
NO_ROUTE = errors.HfHubHTTPError.__bases__[0]("no route to host")


def answer(kind):
    """An error as the client makes it of a server's answer."""
    response = SimpleNamespace(headers={}, request=None, status_code=404)
    return kind("404 Client Error.\n\nDetails on more lines", response=response)


def one_line(error, message):
    assert str(error.value) == message


# ---- what is fetched ------------------------------------------------------------------------


def test_a_plain_repository(hub, tiny_prior_folder, monkeypatch):
    prior = load_prior(ID)
    monkeypatch.undo()  # the tokenizer imports the hub's client
    weights = [f"{name}.safetensors" for name in (UNET, VAE, TEXT)]
    assert hub.fetched == [SMALL, sorted([*SMALL, *weights])]
    assert prior.folder == hub.cache
    assert prior.tokenize(["a red house"]).shape == (1, 8)
    jax.tree.map(np.testing.assert_array_equal, prior.params, load_pipeline(tiny_prior_folder)[1])


def test_fp16_goes_first_and_nothing_needless_is_fetched(hub, tiny_prior_folder):
    repository = hub.repository
    for name in (UNET, VAE):
        tensors = load_file(repository / f"{name}.safetensors")
        half = {key: tensor.astype(np.float16) for key, tensor in tensors.items()}
        save_file(half, repository / f"{name}.fp16.safetensors")
    (repository / f"{VAE}.safetensors").unlink()
    tensors = load_file(repository / f"{TEXT}.safetensors")
    (repository / f"{TEXT}.safetensors").unlink()
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    places = {name: shards[i % 2] for i, name in enumerate(sorted(tensors))}
    for shard in shards:
        part = {name: tensors[name] for name in tensors if places[name] == shard}
        save_file(part, repository / "text_encoder" / shard)
    index = f"{TEXT}.safetensors.index.json"
    (repository / index).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    for name in (
        "v1-5-pruned.ckpt",
        "v1-5-pruned.safetensors",
        f"{UNET}.bin",
        f"{UNET}.non_ema.safetensors",
        "unet/flax_model.msgpack",
        "text_encoder/pytorch_model.bin",
        "safety_checker/model.safetensors",
        "feature_extractor/preprocessor_config.json",
        "other/unet/config.json",
    ):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text("{}")
    assert fetch(ID) == hub.cache
    weights = [f"{UNET}.fp16.safetensors", f"{VAE}.fp16.safetensors"]
    weights += [index, *(f"text_encoder/{shard}" for shard in shards)]
    assert hub.fetched == [sorted([*SMALL, index]), sorted([*SMALL, *weights])]
    found, expected = load_pipeline(hub.cache).params, load_pipeline(tiny_prior_folder).params
    halved = jax.tree.map(lambda p: np.float32(np.float16(p)), expected)
    halved["text_encoder"] = expected["text_encoder"]
    jax.tree.map(np.testing.assert_array_equal, found, halved)


def test_a_network_that_is_not_supported_costs_no_long_download(hub):
    config = json.loads((hub.repository / "unet/config.json").read_text())
    config["class_embed_type"] = "timestep"
    (hub.repository / "unet/config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"^owner/tiny: .*class_embed_type"):
        fetch(ID)
    assert hub.fetched == [SMALL]


def test_a_tokenizer_of_transformers_5(hub):
    """tokenizer.json and tokenizer_config.json alone."""
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
        (hub.repository / "tokenizer" / name).unlink()
    prior = load_prior(ID)
    assert prior.tokenize(["a red house"]).shape == (1, 8)
    assert sorted(path.name for path in (hub.cache / "tokenizer").iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_a_repository_without_a_tokenizer(hub):
    (hub.repository / "tokenizer/tokenizer.json").unlink()
    (hub.repository / "tokenizer/merges.txt").unlink()
    with pytest.raises(ValueError, match=r"^owner/tiny has no tokenizer: neither"):
        fetch(ID)
    assert hub.fetched == []


def test_an_inpainting_model_costs_no_long_download(hub):
    config = json.loads((hub.repository / "unet/config.json").read_text())
    (hub.repository / "unet/config.json").write_text(json.dumps(config | {"in_channels": 9}))
    with pytest.raises(ValueError, match=r"^owner/tiny: the unet takes 9 channels and predicts 4"):
        fetch(ID)
    assert hub.fetched == [SMALL]


@pytest.mark.parametrize(
    ("name", "entries", "message"),
    [
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "FlowMatchEulerDiscreteScheduler"},
            "Flow",
        ),
        ("tokenizer/tokenizer_config.json", {"model_max_length": -1}, "model_max_length"),
    ],
)
def test_a_bad_small_file_costs_no_long_download(hub, name, entries, message):
    file = hub.repository / name
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | entries))
    with pytest.raises(ValueError, match=rf"^owner/tiny/{name}.*{message}"):
        fetch(ID)
    assert hub.fetched == [SMALL]


# ---- without a connection -------------------------------------------------------------------


def no_connection(monkeypatch, error):
    def model_info(self, repo_id, *, revision, timeout):
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)


@pytest.mark.parametrize("error", [OFFLINE, NO_ROUTE, answer(errors.HfHubHTTPError)])
def test_the_cache_serves_alone(cached, monkeypatch, error):
    no_connection(monkeypatch, error)
    assert fetch(ID).samefile(cached)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OFFLINE, "Cannot reach the hub: offline mode is enabled."),
        (NO_ROUTE, "no route to host"),
        (TimeoutError(), "TimeoutError"),
        (answer(errors.HfHubHTTPError), "404 Client Error."),
    ],
)
@pytest.mark.parametrize("absent", ["all", f"{UNET}.safetensors"])
def test_what_the_cache_does_not_hold_is_said(cached, monkeypatch, error, reason, absent):
    no_connection(monkeypatch, error)
    if absent == "all":
        shutil.rmtree(cached.parents[1])
    else:
        (cached / absent).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        load_prior(ID)
    message = f"'{ID}' is no folder, and as a repository of the hub it is not, or not wholly, in "
    one_line(caught, f"{message}the cache; the hub cannot be reached: {reason}")


# ---- refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["listing_error", "download_error"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            errors.RepositoryNotFoundError,
            "'owner/tiny' is neither a folder nor a repository of the hub that you may read "
            "(for a private one log in with: hf auth login)",
        ),
        (
            errors.GatedRepoError,
            "owner/tiny is gated: accept its licence on its page of the hub, then log in with: "
            "hf auth login",
        ),
        (errors.RevisionNotFoundError, "owner/tiny has no revision 'main'"),
    ],
)
def test_refusals_of_the_hub(hub, step, kind, message):
    setattr(hub, step, answer(kind))
    with pytest.raises(ValueError) as caught:
        load_prior(ID)
    one_line(caught, message)


def test_a_download_that_fails(hub):
    hub.download_error = OSError("No space left on device\nmore")
    with pytest.raises(ValueError) as caught:
        fetch(ID)
    one_line(caught, "owner/tiny could not be downloaded: No space left on device")


def test_a_repository_without_safetensors(hub):
    (hub.repository / f"{VAE}.safetensors").rename(hub.repository / f"{VAE}.bin")
    with pytest.raises(ValueError) as caught:
        load_prior(ID)
    one_line(
        caught,
        "owner/tiny has no safetensors for its vae, and pickles can run code and are not read; "
        "convert: hf download owner/tiny --local-dir FOLDER, then python "
        "experiments/tools/convert_weights.py FOLDER NEW_FOLDER, and pass NEW_FOLDER",
    )
    assert hub.fetched == []


def test_a_repository_of_another_kind(hub):
    shutil.rmtree(hub.repository / "unet")
    with pytest.raises(ValueError, match=r"in diffusers layout: it has no unet/config\.json$"):
        load_prior(ID)
    assert hub.fetched == []


# ---- names ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["owner/name", "O-w_n.er/v1.5", "a/b"])
def test_ids(name):
    huggingface_hub.utils.validate_repo_id(name)
    assert is_repo_id(name)


@pytest.mark.parametrize(
    "name",
    ["toybox", "/a/b", "./a", "../a", "a/b/c", "a/", "a--b/c", "a/b..c", "~/a", "a/b.", "é/b", ""],
)
def test_no_ids(name):
    assert not is_repo_id(name)


def test_a_folder_goes_before_a_repository(hub, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path(ID).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"^owner/tiny is not a diffusers"):
        load_prior(ID)
    assert hub.fetched == []


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".pt", ".pth", ".CKPT"])
def test_pickles_are_refused(hub, suffix):
    with pytest.raises(ValueError) as caught:
        load_prior(f"owner/model{suffix}")
    one_line(
        caught,
        f"owner/model{suffix} is a pickle, which can run code and is not read; convert it: "
        f"python experiments/tools/convert_weights.py owner/model{suffix} owner/model.safetensors",
    )


def test_what_is_no_prior_gets_the_nearest_name(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("owner").mkdir()
    Path("owner/file").touch()
    for name in ("./toybx", "owner/file"):
        with pytest.raises(ValueError) as caught:
            load_prior(name)
        one_line(
            caught,
            f"prior '{name}' is neither an embedded prior nor a folder nor a repository of the "
            "hub (owner/name); did you mean 'toybox'?",
        )
