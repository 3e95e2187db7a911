"""Numbers of one method's recipe among several."""

import pytest

from dsd_jax.cli import overrides
from dsd_jax.recipe.presets import standard
from dsd_jax.recipe.recipe import changed, with_method


def values(text, recipe=standard):
    return overrides.values(recipe, overrides.parse(text)[1])


def test_values_have_the_type_of_the_number():
    method, given = overrides.parse("dsd@25:guidance-scale=10, steps = 7")
    assert method == "dsd@25" and given == {"guidance_scale": "10", "steps": "7"}
    found = overrides.values(standard, given)
    assert found == {"guidance_scale": 10.0, "steps": 7}
    assert isinstance(found["guidance_scale"], float)
    found = values("dsd:anchor=interpolated,eta_at=None,reference.mask=3,view_noise=own")
    assert found == {
        "anchor": "interpolated", "eta_at": None, "reference.mask": 3.0, "view_noise": "own"
    }  # fmt: skip
    assert values("cfd:ode_guidance_below=0.5,negative_prompt=a wall") == {
        "ode_guidance_below": 0.5, "negative_prompt": "a wall"
    }  # fmt: skip


def test_a_method_has_numbers_of_its_own():
    vsd = with_method(standard, "vsd")
    assert changed(vsd, **values("vsd:lora_rate=0.1", vsd)).method == type(vsd.method)(
        guidance_scale=5.0, guidance_rescale=0.3, lora_rate=0.1
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sds", "must be METHOD:NUMBER=VALUE"),
        ("sds:steps", "must be METHOD:NUMBER=VALUE"),
        (":steps=3", "must be METHOD:NUMBER=VALUE"),
        ("sds:=3", "must be METHOD:NUMBER=VALUE"),
        ("sds:stepps=3", "has a number stepps; did you mean steps?"),
        ("dsd:lora_rate=3", "no part of a recipe with method DSD has a number lora_rate"),
        ("sds:steps=few", "--set steps=few: it must be int, not 'few'"),
        ("sds:anchor=trajectorie", "must be interpolated or trajectory, not 'trajectorie'"),
        ("sds:eta_at=x", "must be float or None, not 'x'"),
        ("sds:steps=3,steps=5", "--set: steps comes twice"),
        ("sds:guidance-scale=3,guidance_scale=5", "--set: guidance_scale comes twice"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(ValueError, match="--set") as error:
        values(text)
    assert message in str(error.value)
