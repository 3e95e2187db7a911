"""Settings of one method among several."""

import pytest

from dsd_jax.cli.overrides import parse


def test_values_have_the_type_of_the_setting():
    method, changes = parse("dsd@25:guidance-scale=10,steps=7,anchor=interpolated,eta_at=None")
    assert method == "dsd@25"
    assert changes == {"guidance_scale": 10.0, "steps": 7, "anchor": "interpolated", "eta_at": None}
    assert isinstance(changes["guidance_scale"], float)
    assert parse("cfd:view_noise=own,ode_guidance_below=0.5,negative_prompt=a wall")[1] == {
        "view_noise": "own", "ode_guidance_below": 0.5, "negative_prompt": "a wall"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sds", "must be METHOD:SETTING=VALUE"),
        ("sds:steps", "must be METHOD:SETTING=VALUE"),
        (":steps=3", "must be METHOD:SETTING=VALUE"),
        ("sds:stepps=3", "did you mean steps?"),
        ("sds:steps=few", "steps must be int, not 'few'"),
        ("sds:anchor=trajectorie", "anchor must be interpolated or trajectory, not 'trajectorie'"),
        ("sds:eta_at=x", "eta_at must be float or None, not 'x'"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(ValueError, match="--set") as error:
        parse(text)
    assert message in str(error.value)
