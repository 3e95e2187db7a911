"""Seeds of the command line, and chunks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsd_jax.engine.seeds import chunk_length, chunk_seeds, dividing_devices, parse_seeds, unpadded


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0:4", [0, 1, 2, 3]),
        ("0:16:2", list(range(0, 16, 2))),
        (":3", [0, 1, 2]),
        ("3", [3]),
        ("1,5,9", [1, 5, 9]),
        ("7, 0:2", [7, 0, 1]),
        ("4294967295", [2**32 - 1]),
    ],
)
def test_parses(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a number"),
        ("4:4", "empty range"),
        ("5:2", "empty range"),
        ("-1", "not negative"),
        ("-3:2", "not negative"),
        ("0:-4", "not negative"),
        ("1,1", "names 1 twice"),
        ("0:3,2", "names 2 twice"),
        ("0:4:0", "step"),
        ("a", "not a number"),
        ("1.5", "not a number"),
        ("0:4:2:1", "not a number"),
        ("1,,2", "not a number"),
        ("²", "not a number"),
        ("4294967296", "too large"),
        ("0:99999999999", "too many"),
        ("0:200000", "too many"),
        ("0:99999,100000:100010", "names 100009 seeds; the most are 100000"),
    ],
)
def test_refuses_in_one_line(text, said):
    with pytest.raises(ValueError, match=said) as caught:
        parse_seeds(text)
    assert "\n" not in str(caught.value)


@given(
    st.lists(st.integers(0, 99), min_size=1, unique=True),
    st.integers(1, 20),
    st.integers(1, 9),
)
def test_chunks_hold_every_seed_once_and_spread_evenly(seeds, each, devices):
    c = chunk_length(len(seeds), each, devices)
    chunks = chunk_seeds(seeds, c)
    assert [seed for chunk in chunks for seed in chunk[: unpadded(chunk)]] == seeds
    assert {len(chunk) for chunk in chunks} == {c}
    assert len(chunks) == -(-len(seeds) // (each * devices))
    used = dividing_devices(c, devices)
    on_each = -(-min(-(-len(seeds) // len(chunks)), each * devices) // devices)
    assert c // used == on_each <= each
    every = chunk_length(len(seeds), each, devices, all_of_them=True)
    assert every == on_each * devices


@pytest.mark.parametrize(
    ("n", "each", "devices", "c"),
    [(5, 4, 1, 3), (7, 99, 1, 7), (7, 99, 4, 8), (5, 99, 4, 6), (1, 1, 8, 1), (16, 1, 8, 8)],
)
def test_length_of_chunks(n, each, devices, c):
    assert chunk_length(n, each, devices) == c


def test_chunks_are_filled_up():
    assert chunk_seeds([1, 2, 3, 4, 5], 3) == [[1, 2, 3], [4, 5, 5]]
    assert chunk_seeds([7], 1) == [[7]]
    with pytest.raises(ValueError, match="at least one"):
        chunk_length(1, 0)


@pytest.mark.parametrize(("c", "d", "used"), [(16, 8, 8), (6, 4, 3), (7, 4, 1), (1, 8, 1)])
def test_devices_divide_the_seeds(c, d, used):
    assert dividing_devices(c, d) == used
