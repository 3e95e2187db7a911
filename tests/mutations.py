"""Seeded mutations of files: read, or refused in one line, within bounds.

The mutations of one kind run one after another in one process of their own, which may end by
itself only, keeps to 1 GB above what the unchanged files take, and spends at most 20 s on each.
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

ROUNDS, MOST_SECONDS, MOST_BYTES = 200, 20, 2**30
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
    """One mutation of a file: of JSON mostly of its values, of safetensors of the header."""
    raw = file.read_bytes()
    if file.suffix not in (".json", ".safetensors", ".glb"):
        file.write_bytes(spoil_text(rng, raw))
        return
    if file.suffix == ".json":
        if rng.random() < 0.2:
            file.write_bytes(spoil_text(rng, raw))
        else:
            file.write_text(json.dumps(mutated(rng, json.loads(raw))))
        return
    first, width = (12, 4) if file.suffix == ".glb" else (0, 8)  # where its size stands
    size, start = int.from_bytes(raw[first : first + width], "little"), first + 8
    header, body = raw[start : start + size], raw[start + size :]
    if rng.random() < 0.2:
        header = spoil_text(rng, header)
    else:
        header = json.dumps(mutated(rng, json.loads(header))).encode()
    size = len(header) if rng.random() < 0.9 else rng.choice((0, 1, 2**31, 256**width - 1))
    before = raw[:first] + size.to_bytes(width, "little") + raw[first + width : start]
    file.write_bytes(before + header + body)


def check(kind: str, names, uses, source: Path, place: Path, rounds: int = ROUNDS) -> None:
    """Print what goes wrong when files of a folder are spoilt; an empty output is a success.

    Args:
        names: of the files.
        uses: what is done with a copy of the folder, (folder) -> None each.
    """
    for use in uses:
        use(source)
    usual = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    read = 0
    for seed in range(rounds):
        rng = random.Random(f"{kind} {seed}")
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(source, place)
        name = rng.choice([name for name in names if (source / name).is_file()])
        spoil(rng, place / name)
        print(f"seed {seed} {name}", file=sys.stderr, flush=True)
        for use in uses:
            began = time.monotonic()
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
    if read == rounds * len(uses):
        print("no mutation was refused")


def checked(script: str, kind: str, source: Path, place: Path) -> None:
    """Run a test's file as a program, which checks one kind and may end by itself only."""
    command = [sys.executable, script, kind, str(source), str(place)]
    environment = os.environ | {
        "PYTHONPATH": f"{Path(__file__).parents[1]}:{Path(__file__).parent}"
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"ended by itself: {done.stderr[-2000:]}"
    assert done.stdout == "", done.stdout
