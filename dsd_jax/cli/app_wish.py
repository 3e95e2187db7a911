"""What a visitor of `dsd app` asks for, checked, as the command line that makes it.

words_of(Wish("a house", seeds=4), Offer(), Path("runs"))  # text3d --prompt=... --seeds 0:4 ...
"""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dsd_jax.distillation import METHODS
from dsd_jax.engine.seeds import MAX_SEED
from dsd_jax.export.command import seeds_text
from dsd_jax.files import is_text
from dsd_jax.recipe.presets import PRESETS

# Largest number of letters of a prompt, bytes and pixels of a picture.
LETTERS, PICTURE_BYTES, PIXELS = 200, 20_000_000, 40_000_000
# Pictures of visitors, in the folder of the runs.
PICTURES = "pictures"


class Offer(NamedTuple):
    """What visitors may ask for.

    Attributes:
        seeds: how many at most.
        presets: the first is the page's own choice.
        prior, picture_prior: for prompts, and for pictures.
        more: flags of the programs besides.
    """

    seeds: int = 8
    presets: Sequence[str] = ("quick", "draft", "standard")
    prior: str = "toybox"
    picture_prior: str = "toybox-1to3"
    more: Sequence[str] = ()


class Wish(NamedTuple):
    """As it comes from the page or over HTTP: anything may be in it.

    Attributes:
        picture: a file, instead of a prompt.
        seeds, first: how many, and which is the first.
    """

    prompt: str = ""
    picture: str | None = None
    seeds: int = 4
    first: int = 0
    method: str = "dsd"
    preset: str = "quick"


def words_of(wish: Wish, offer: Offer, out: Path) -> list[str]:
    """The command line, after `dsd`; a picture is copied into `out`, where it stays.

    Raises ValueError with one line for the visitor.
    """
    count = _whole("the number of seeds", wish.seeds, 1, offer.seeds)
    first = _whole("the first seed", wish.first, 0, MAX_SEED - offer.seeds)
    method = _one_of("the method", wish.method, list(METHODS))
    preset = _one_of("the preset", wish.preset, offer.presets)
    prompt = _prompt(wish.prompt)
    if prompt and wish.picture:
        raise ValueError("give a prompt or a picture, not both")
    if not prompt and not wish.picture:
        raise ValueError("say what to make, for instance “a house”, or give a picture")
    if wish.picture:
        kept = _keep(Path(wish.picture), out / PICTURES)
        words = ["single-view", f"--image={kept}", "--prior", offer.picture_prior]
    else:
        words = ["text3d", f"--prompt={prompt}", "--prior", offer.prior]
    seeds = seeds_text(range(first, first + count))
    words += ["--seeds", seeds, "--method", method, "--preset", preset, "--out", str(out)]
    return [*words, *offer.more]


def check(offer: Offer) -> None:
    """Raise ValueError, with one line for the user, for an offer that is none."""
    _whole("--seeds", offer.seeds, 1, 1000)
    for name in offer.presets:
        _one_of("--presets", name, list(PRESETS))
    if not offer.presets:
        raise ValueError(f"--presets names none; there are {', '.join(PRESETS)}")


def _prompt(text: object) -> str:
    if not isinstance(text or "", str) or not is_text(str(text)):
        raise ValueError("the prompt is no text")
    prompt = " ".join(str(text or "").split())
    if len(prompt) > LETTERS:
        raise ValueError(f"the prompt has {len(prompt)} letters; at most {LETTERS} are read")
    if not prompt.isprintable():
        raise ValueError("the prompt holds characters that are none")
    return prompt


def _whole(name: str, value: object, least: int, most: int) -> int:
    """A whole number, which may be written 4.0."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if number is None or not least <= number <= most or number != int(number):
        said = f"{value!r}"[:40]
        raise ValueError(f"{name} must be a whole number from {least} to {most}, not {said}")
    return int(number)


def _one_of(name: str, value: object, valid: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in valid:
        raise ValueError(f"{name} must be one of {', '.join(valid)}, not {f'{value!r}'[:40]}")
    return value


def _keep(picture: Path, folder: Path) -> Path:
    """A copy of a picture that outlives the visit, one of each content and name."""
    from PIL import Image

    try:
        if picture.stat().st_size > PICTURE_BYTES:
            raise ValueError(f"the picture is larger than {PICTURE_BYTES // 1_000_000} MB")
        with Image.open(picture) as opened:
            width, height = opened.size
    except (OSError, SyntaxError, Image.DecompressionBombError):
        raise ValueError("the picture cannot be read; give a PNG, JPEG or WebP") from None
    if width * height > PIXELS:
        raise ValueError(f"the picture has more than {PIXELS // 1_000_000} million pixels")
    name = hashlib.sha256(picture.read_bytes()).hexdigest()[:16]
    kept = folder / name / picture.name
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(picture, kept)
    return kept
