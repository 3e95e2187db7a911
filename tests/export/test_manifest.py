"""What says that a run is complete."""

import pytest
from gallery_run import make_run

from dsd_jax.export import manifest
from dsd_jax.export.gallery import write_gallery


@pytest.fixture
def run(tmp_path):
    run = make_run(tmp_path, seeds=range(2))
    write_gallery(run)
    manifest.write_manifest(run)
    return run


@pytest.mark.parametrize(
    "name", ["index.html", "metrics.json", "seed_0001/views/az045.png", "seed_0000/mesh.js"]
)
def test_what_is_missing_cut_off_or_changed_is_named(run, name):
    assert manifest.faults(run) == []
    data = (run / name).read_bytes()
    for damaged in (None, data[:-1], bytes([data[0] ^ 1]) + data[1:]):
        (run / name).unlink() if damaged is None else (run / name).write_bytes(damaged)
        assert manifest.faults(run) == [name]
    (run / name).write_bytes(data)
    assert manifest.faults(run) == []


def test_temporary_files_and_logs_are_no_results(run):
    (run / "seed_0000" / ".0123.mp4").write_bytes(b"")
    (run / "log.jsonl").write_bytes(b"")
    manifest.write_manifest(run)
    listed = (run / manifest.NAME).read_text()
    assert ".0123" not in listed and "log.jsonl" not in listed


def test_what_is_written_anew_later_is_described_anew(run):
    """By export_mesh.py and export_gallery.py; what was damaged before stays so."""
    (run / "seed_0000" / "turntable.mp4").write_bytes(b"")
    (run / "seed_0000" / "mesh.glb").write_bytes((run / "seed_0001" / "turntable.mp4").read_bytes())
    (run / "seed_0000" / "mesh.obj").write_bytes(b"new")
    manifest.renew(run, ["seed_0000/mesh.glb", "seed_0000/mesh.obj", "seed_0000/mesh.ply"])
    write_gallery(run)
    assert manifest.faults(run) == ["seed_0000/turntable.mp4"]
    (run / "seed_0000" / "mesh.obj").unlink()
    assert set(manifest.faults(run)) == {"seed_0000/turntable.mp4", "seed_0000/mesh.obj"}


def test_seeds_without_files_are_told(run):
    manifest.write_manifest(run, {5: 17})
    manifest.renew(run, ["index.html"])
    assert manifest.diverged(run) == {5: 17}
    (run / manifest.NAME).write_text('{"files": {}, "diverged": {"5": null}}')
    with pytest.raises(ValueError, match=r"manifest.json is damaged: its seeds are none"):
        manifest.diverged(run)


def test_without_a_list_nothing_is_renewed(run):
    manifest.drop_manifest(run)
    manifest.renew(run, ["index.html"])
    with pytest.raises(FileNotFoundError):
        manifest.faults(run)
    (run / manifest.NAME).write_text('{"files": null}')
    with pytest.raises(ValueError, match=r"manifest.json is damaged: it does not say files"):
        manifest.faults(run)
