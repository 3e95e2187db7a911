"""Several processes, as one of them sees them."""

from types import SimpleNamespace

import numpy as np

from dsd_jax.engine import hosts


def test_a_row_of_another_process_is_not_there():
    def shard(start, rows):
        return SimpleNamespace(index=(slice(start, start + len(rows)),), data=rows)

    rows = np.arange(8).reshape(4, 2)
    ours = SimpleNamespace(addressable_shards=[shard(4, rows[:2]), shard(6, rows[2:])])
    assert hosts.own_row({"a": ours}, 6)["a"].tolist() == [4, 5]
    assert hosts.own_row({"a": ours}, 5)["a"].tolist() == [2, 3]
    assert hosts.own_row({"a": ours}, 3) is None


def test_processes_of_one_machine_are_counted(monkeypatch):
    monkeypatch.setattr(hosts, "everyones", lambda name: np.array([[name], [name], [1.0]]))
    assert hosts.on_this_machine() == 2
