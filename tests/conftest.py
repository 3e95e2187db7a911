"""What many tests need: quick compiling, and tiny latent priors.

In diffusers' folder layout; of MVDream and of Zero-1-to-3 in one file, and as their ports' folders.
And a browser for what is looked at in one.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import hypothesis
import jaxlib
import numpy as np
import pytest

from dsd_jax.models import keys, ldm_pipeline, zero123
from dsd_jax.models.networks import build, param_shapes
from dsd_jax.models.tokenizer import train_tokenizer
from dsd_jax.models.weights import STABLE_DIFFUSION_SCHEDULER, Pipeline, save_pipeline

# They shorten compiling. A jaxlib that does not know a flag would end the process.
QUICK_XLA = {"xla_backend_optimization_level": "1"}
if jaxlib.__version__.startswith("0.10."):
    QUICK_XLA["xla_cpu_use_fusion_emitters"] = "false"
_own_cache: list[str] = []

# A busy machine is no fault of what is tested.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

BROWSERS = ["chromium", "chromium-browser", "google-chrome", "chrome", "chrome-headless-shell"]
SOFTWARE_GL = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def pytest_configure(config):
    """All processes of a session share one cache of compiled programs, also of the smallest.

    JAX_COMPILATION_CACHE_DIR holds where it is given, and so does XLA_FLAGS: with
    "--xla_backend_optimization_level=3 --xla_cpu_use_fusion_emitters=true" programs are compiled as
    users' are.
    """
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        _own_cache.append(tempfile.mkdtemp(prefix="dsd_jax_tests_"))
        os.environ["JAX_COMPILATION_CACHE_DIR"] = _own_cache[0]
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    given = os.environ.get("XLA_FLAGS", "")
    flags = [f"--{flag}={value}" for flag, value in QUICK_XLA.items() if flag not in given]
    os.environ["XLA_FLAGS"] = " ".join([given, *flags]).strip()
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    seconds = float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)


def pytest_unconfigure(config):
    """The cache goes with the process that made it, the last one to end."""
    for folder in _own_cache:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def quick_compilation():
    """For programs that run for milliseconds: compiling them well would take seconds."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def browser():
    """Chromium by Playwright; tests that want it are skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with api.sync_playwright() as playwright:
        if found is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip("there is no Chromium")
        chromium = playwright.chromium.launch(executable_path=found, args=SOFTWARE_GL)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory) -> Path:
    """Stable Diffusion in miniature as diffusers and transformers wrote it, with random weights.

    tiny_sd/ holds the rest of the folder, and in tensors.json their names and shapes.
    """
    from safetensors.numpy import save_file

    source = Path(__file__).parent / "tiny_sd"
    folder = tmp_path_factory.mktemp("tiny_sd") / "tiny_sd"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("tensors.json"))
    rng = np.random.default_rng(0)

    def draw(name, shape):
        values = rng.normal(size=shape)
        if len(shape) > 1:
            values /= np.prod(shape[1:]) ** 0.5
        else:
            values = 1 + 0.2 * values if name.endswith(".weight") else 0.1 * values
        return values.astype(np.float32)

    for file, shapes in json.loads((source / "tensors.json").read_text()).items():
        tensors = {name: draw(name, shape) for name, shape in shapes.items()}
        save_file(tensors, folder / file, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def tiny_prior_folder(tmp_path_factory) -> Path:
    """Images 16 x 16, latents 4 x 4 x 4, camera conditioning; knows the words "a red house"."""
    return _tiny_prior(tmp_path_factory.mktemp("prior"))


@pytest.fixture(scope="session")
def tiny_rgba_prior_folder(tmp_path_factory) -> Path:
    """The same for pictures whose fourth channel is opacity, as Toybox's are."""
    return _tiny_prior(tmp_path_factory.mktemp("prior"), {"in_channels": 4, "out_channels": 4})


def _tiny_prior(folder: Path, pictures: Mapping = MappingProxyType({})) -> Path:
    import jax

    vocabulary = train_tokenizer(["a red house"], folder / "words", max_length=8)
    networks = build(
        {
            "block_out_channels": [8, 16],
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
            "layers_per_block": 1,
            "attention_head_dim": [1, 2],
            "norm_num_groups": 4,
            "cross_attention_dim": 16,
            "use_linear_projection": True,
            "sample_size": 4,
            "camera_dim": 16,
        },
        {
            "block_out_channels": [4, 8, 8],
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "sample_size": 16,
            "scaling_factor": 1.0,
            **pictures,
        },
        {
            "vocab_size": vocabulary,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 8,
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
        },
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), param_shapes(networks)
    )
    save_pipeline(folder, Pipeline(networks, params), tokenizer=folder / "words", dtype=np.float32)
    (folder / "words.json").write_text(json.dumps({"a": 1, "red": 1, "house": 2}))
    return folder


# ---- single files of the latent-diffusion code, and their ports to diffusers -----------------

LDM_UNET = {
    "image_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "channel_mult": [1],
    "num_res_blocks": 1,
    "attention_resolutions": [1],
    "num_head_channels": 16,
    "context_dim": 32,
}
PORT_LEAVES_OUT = {"use_spatial_transformer": True, "use_linear_in_transformer": True}
LDM_VAE = {
    "ch": 32,
    "ch_mult": [1, 1],
    "num_res_blocks": 1,
    "z_channels": 4,
    "in_channels": 3,
    "out_ch": 3,
    "resolution": 16,
    "scale_factor": 0.18215,
}


@pytest.fixture(scope="session")
def random_tensors():
    """(content of a JSON file) -> random tensors of a checkpoint that it describes, by name."""

    def draw(config):
        kind = ldm_pipeline if "text_encoder" in config else zero123
        networks = kind.build_networks(config)
        shapes = (param_shapes if kind is ldm_pipeline else zero123.param_shapes)(networks)
        places = ldm_pipeline.expected_tensors(config, networks.unet.config, shapes)
        rng = np.random.default_rng(0)
        return {
            name: rng.normal(0, 0.1, keys.torch_shape(path, leaf.shape)).astype(np.float32)
            for name, (path, leaf) in places.items()
        }

    return draw


@pytest.fixture(scope="session")
def mvdream_file(tiny_prior_folder, tmp_path_factory, random_tensors) -> Path:
    """MVDream in miniature with OpenCLIP's encoder: images 16 x 16; "a red house" it can read."""
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("mvdream_file")
    shutil.copytree(tiny_prior_folder / "tokenizer", folder / "tokenizer")
    text = json.loads((tiny_prior_folder / "text_encoder" / "config.json").read_text())
    config = {
        "unet": {**LDM_UNET, **PORT_LEAVES_OUT, "camera_dim": 16},
        "vae": LDM_VAE,
        "text_encoder": {
            "kind": "openclip",
            "vocab_size": text["vocab_size"],
            "width": 32,
            "layers": 2,
            "heads": 2,
            "context_length": 8,
        },
        "scheduler": STABLE_DIFFUSION_SCHEDULER,
    }
    unread = {"cond_stage_model.model.transformer.resblocks.1.ln_1.bias": np.zeros(32)}
    save_file(random_tensors(config) | unread, folder / "mvdream.safetensors")
    (folder / "mvdream.json").write_text(json.dumps(config))
    return folder / "mvdream.safetensors"


@pytest.fixture(scope="session")
def mvdream_folder(mvdream_file, tmp_path_factory) -> Path:
    """The same as the port to diffusers has it, whose unet keeps its names and configuration."""
    from safetensors.numpy import load_file, save_file

    folder = tmp_path_factory.mktemp("mvdream_folder")
    pipeline = ldm_pipeline.load_single_file(mvdream_file)
    save_pipeline(folder, pipeline, mvdream_file.parent / "tokenizer", np.float32)
    prefix = "model.diffusion_model."
    stored = load_file(mvdream_file).items()
    unet = {name.removeprefix(prefix): t for name, t in stored if name.startswith(prefix)}
    save_file(unet, folder / "unet" / "diffusion_pytorch_model.safetensors")
    names = {"_class_name": "MultiViewUNetModel", "_diffusers_version": "0.25.0"}
    config = json.dumps({**names, **LDM_UNET, "camera_dim": 16, "transformer_depth": 1})
    (folder / "unet" / "config.json").write_text(config)
    return folder


@pytest.fixture(scope="session")
def zero123_file(tmp_path_factory, random_tensors) -> Path:
    """Zero-1-to-3 in miniature: images 16 x 16, of which CLIP sees 12 x 12."""
    from safetensors.numpy import save_file

    config = {
        "unet": {**LDM_UNET, "in_channels": 8, "use_spatial_transformer": True},
        "vae": LDM_VAE,
        "image_encoder": {
            "image_size": 12,
            "patch_size": 4,
            "width": 16,
            "layers": 2,
            "heads": 2,
            "embed_dim": 32,
        },
        "scheduler": STABLE_DIFFUSION_SCHEDULER,
    }
    file = tmp_path_factory.mktemp("zero123_file") / "zero123.safetensors"
    save_file(random_tensors(config), file)
    file.with_suffix(".json").write_text(json.dumps(config))
    return file


@pytest.fixture(scope="session")
def zero123_folder(zero123_file, tmp_path_factory) -> Path:
    """The same as a port to diffusers (that with cc_projection) has it."""
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("zero123_folder")
    pipeline = zero123.load_single_file(zero123_file)
    unet = "diffusion_pytorch_model.safetensors"
    files = {"unet": unet, "vae": unet, "image_encoder": "model.safetensors", "cc_projection": unet}
    for part, name in files.items():
        prefix = "projection." if part == "cc_projection" else ""
        flat = keys.flatten(pipeline.params[part], prefix)
        network = getattr(pipeline.networks, part, None)
        config = {"_class_name": "CCProjection"} if network is None else network.config.to_dict()
        (folder / part).mkdir()
        (folder / part / "config.json").write_text(json.dumps(config))
        save_file({k: keys.to_torch(path, leaf) for k, (path, leaf) in flat.items()},
                  folder / part / name)  # fmt: skip
    (folder / "scheduler").mkdir()
    scheduler = json.dumps(STABLE_DIFFUSION_SCHEDULER)
    (folder / "scheduler" / "scheduler_config.json").write_text(scheduler)
    index = {"_class_name": "Zero1to3StableDiffusionPipeline", "pose": "distance"}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def compilations():
    """The names of the programs that XLA compiles, or finds among those kept, from now on."""
    import jax

    names = []

    def note(event, seconds, fun_name="", **_):
        if "backend_compile" in event:
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(note)
    return names
