"""One page over several runs."""

import json

from dsd_jax.export.overview import Row, write_overview
from dsd_jax.files import write_json

METRICS = {
    "diversity": 0.425, "fidelity": {"accepted": 0.625}, "seconds": {"total": 125.3},
    "seeds": {"10": {}, "2": {}},
}  # fmt: skip


def test_a_row_a_run(tmp_path):
    """Complete, cut off before its scores, failed before its folder, and not begun."""
    whole, cut = tmp_path / "a house #1", tmp_path / "b"
    write_json(whole / "metrics.json", METRICS)
    (whole / "index.html").write_text("page")
    cut.mkdir()
    rows = [
        Row("<a> house", whole, "complete"),
        Row("b", cut, "interrupted"),
        Row("c", None, "failed", "no <disc> space"),
        Row("d"),
    ]
    assert write_overview(tmp_path, rows) == tmp_path / "overview.html"
    first, second, third, fourth = json.loads((tmp_path / "overview.json").read_text())["runs"]
    assert first == {
        "title": "<a> house", "state": "complete", "error": "", "folder": "a house #1",
        "page": "a house #1/index.html", "diversity": 0.425, "accepted": 0.625, "seconds": 125.3,
        "seeds": [2, 10],
    }  # fmt: skip
    assert (second["folder"], second["page"], second["seeds"]) == ("b", "b", [])
    assert (third["folder"], third["error"]) == (None, "no <disc> space")
    assert (fourth["state"], fourth["page"]) == ("waiting", None)
    page = (tmp_path / "overview.html").read_text("utf-8")
    assert "4 runs · 1 complete · 1 interrupted · 1 failed · 1 waiting" in page
    assert page.count("<section") == 4 and page.count("<figure>") == 2
    assert '<a href="a%20house%20%231/index.html">&lt;a&gt; house</a>' in page
    assert 'src="a%20house%20%231/seed_0002/turntable.mp4"' in page
    assert 'poster="a%20house%20%231/seed_0010/views/az045.png"' in page
    assert "failed: no &lt;disc&gt; space" in page and "<a> house" not in page
    assert "<dt>accepted</dt><dd>62%</dd>" in page
