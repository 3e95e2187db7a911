"""Seeded mutations of priors' files: read, or refused in one line, within bounds.

The mutations of one kind run one after another in one process of their own, which may end by
itself only, keeps to 1 GB above what an unchanged prior takes, and spends at most 20 s on each.
"""

import copy
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest

ROUNDS, MOST_SECONDS, MOST_BYTES = 200, 20, 2**30
CONFIGS = ("unet/config.json", "vae/config.json", "text_encoder/config.json",
           "scheduler/scheduler_config.json", "model_index.json")  # fmt: skip
TOKENIZER = ("tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json",
             "tokenizer/special_tokens_map.json", "tokenizer/vocab.json")  # fmt: skip
WEIGHTS = ("unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors",
           "text_encoder/model.safetensors")  # fmt: skip
PORT = ("unet/config.json", "image_encoder/config.json", "model_index.json")
# {kind: (fixture of the prior, its files that are spoilt)}
KINDS = {
    "configs": ("tiny_prior_folder", CONFIGS),
    "tokenizer": ("tiny_prior_folder", TOKENIZER),
    "headers": ("tiny_prior_folder", WEIGHTS),
    "one file": ("mvdream_file", ("mvdream.json",)),
    "port": ("zero123_folder", PORT),
}
VALUES = (None, True, False, 0, -1, 1, 3, 7, 10**8, 2**63, -16, 0.0, 1e-9, 1e308, float("nan"),
          float("inf"), "", "32", "a" * 5000, [], [0], [10**8], [[]], {}, {"a": 1}, "F8_E4M3",
          "BOOL", "FlowMatchEulerDiscreteScheduler", "v_prediction", [1] * 3000)  # fmt: skip


def nested(depth):
    value = 1
    for i in range(depth):
        value = [value] if i % 2 else {"type": "Sequence", "normalizers": value}
    return value


def mutated(rng: random.Random, content):
    """One to three places of a JSON value changed, taken away, doubled or nested."""
    content = copy.deepcopy(content)
    for _ in range(rng.randint(1, 3)):
        node = content
        while isinstance(node, dict | list) and node:
            key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
            if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.75:
                node = node[key]
                continue
            what = rng.random()
            if what < 0.15:
                del node[key]
            elif what < 0.25 and isinstance(node, dict):
                node[str(key) + "x"] = node[key]
            elif what < 0.3:
                node[key] = nested(rng.choice((5, 50, 400)))
            elif what < 0.45 and isinstance(node[key], int | float):
                node[key] = node[key] * rng.choice((2, -1, 1000, 0.5))
            else:
                node[key] = copy.deepcopy(rng.choice(VALUES))
            break
    return content


def spoil_text(rng: random.Random, text: bytes) -> bytes:
    """Bytes cut, changed or repeated."""
    if rng.random() < 0.2:
        return rng.choice(
            (b"", b"null", b"[]", b"[" * 10**5, b"\xff\xfe", b"version https://git-lfs")
        )
    start = rng.randrange(len(text))
    end = min(len(text), start + rng.randint(1, 40))
    return text[:start] + rng.choice((b"", b"\x00", b"{", b'"', text[start:end] * 2)) + text[end:]


def spoil(rng: random.Random, file: Path) -> None:
    """One mutation of a file: of a safetensors file only of its header."""
    raw = file.read_bytes()
    if file.suffix == ".json":
        if rng.random() < 0.2:
            file.write_bytes(spoil_text(rng, raw))
        else:
            file.write_text(json.dumps(mutated(rng, json.loads(raw))))
        return
    size = int.from_bytes(raw[:8], "little")
    header, body = raw[8 : 8 + size], raw[8 + size :]
    if rng.random() < 0.2:
        header = spoil_text(rng, header)
    else:
        header = json.dumps(mutated(rng, json.loads(header))).encode()
    size = len(header) if rng.random() < 0.9 else rng.choice((0, 1, 2**40, 2**63))
    file.write_bytes(size.to_bytes(8, "little") + header + body)


def use(folder: Path) -> None:
    """What the programs do with a prior before they compile their step."""
    import jax
    import jax.numpy as jnp

    from dsd_jax.priors import Picture, Viewpoint, load_prior

    file = folder / "mvdream.safetensors"
    prior = load_prior(file if file.is_file() else folder)
    prior.warnings("a red house")
    picture = Picture(jnp.ones((16, 16, 3)), jnp.zeros(()))
    text = prior.condition(picture if "image_encoder" in prior.params else "a red house")
    x, t = jnp.zeros(prior.latent_shape), jnp.int32(prior.schedule.last)
    if x.size < 10**6:
        view = Viewpoint(jnp.zeros(()), jnp.zeros(()), jnp.eye(4))
        jax.eval_shape(lambda x: prior.denoiser_at(prior.params, text, view)(7.5)(x, t), x)


def main(kind: str, source: Path, place: Path) -> None:
    """Print what went wrong; an empty output is a success."""
    use(source)
    usual = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    read = 0
    for seed in range(ROUNDS):
        rng = random.Random(f"{kind} {seed}")
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(source, place)
        name = rng.choice([name for name in KINDS[kind][1] if (source / name).is_file()])
        spoil(rng, place / name)
        began = time.monotonic()
        print(f"seed {seed} {name}", file=sys.stderr, flush=True)
        try:
            use(place)
            read += 1
        except (ValueError, FileNotFoundError) as error:
            if len(str(error).splitlines()) != 1 or len(str(error)) > 2000:
                print(f"seed {seed} {name}: no line: {error!r:.300}")
        except BaseException:
            print(f"seed {seed} {name}: {traceback.format_exc()[-1500:]}")
        if time.monotonic() - began > MOST_SECONDS:
            print(f"seed {seed} {name}: took {time.monotonic() - began:.0f} s")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if peak - usual > MOST_BYTES:
            print(f"seed {seed} {name}: took {(peak - usual) / 1e9:.1f} GB")
            usual = peak
    if read == ROUNDS:
        print("no mutation was refused")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_mutations_are_read_or_refused_in_one_line(kind, request, tmp_path):
    source = request.getfixturevalue(KINDS[kind][0])
    source = source if source.is_dir() else source.parent
    command = [sys.executable, __file__, kind, str(source), str(tmp_path / "spoilt")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ.copy())
    assert done.returncode == 0, f"ended by itself: {done.stderr[-2000:]}"
    assert done.stdout == ""


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
