from __future__ import annotations

import dataclasses
import json

import pytest
from shared import requires_shared, shared_dir

from infotok_core.config import from_dict, from_reference_dict, mini, published, to_dict


@pytest.mark.parametrize("make", [published, mini])
def test_a_configuration_survives_json(make):
    assert from_dict(json.loads(json.dumps(to_dict(make())))) == make()


def test_a_base_tokenizer_without_transformers_survives_json():
    base = dataclasses.replace(mini(), transformer=None)
    assert from_dict(json.loads(json.dumps(to_dict(base)))) == base


def test_an_unknown_or_missing_key_is_named():
    document = to_dict(mini())
    with pytest.raises(ValueError, match="chanels"):
        from_dict(document | {"chanels": 1})
    del document["transformer"]["heads"]
    with pytest.raises(ValueError, match="heads"):
        from_dict(document)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 3}, "power of two, not 3"),
        ({"patch_size": 8}, "exceeds the compression"),
        ({"levels": (8, 1)}, "two values"),
        ({"channels_mult": (2,)}, "1 levels cannot give"),
        ({"channels_mult": ()}, "needs a level"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(mini(), **change)


def test_the_published_network_resamples_where_its_checkpoint_has_weights():
    config = published()
    assert [config.downsampling(i) for i in range(3)] == [
        (True, True),
        (False, True),
        (False, False),
    ]
    assert [config.upsampling(i) for i in range(3)] == [(False, False), (True, True), (False, True)]


@requires_shared
@pytest.mark.shared
def test_the_published_layout_is_read():
    path = shared_dir() / "golden" / "published_state_dict_keys.json"
    document = json.loads(path.read_text())["config"]
    assert from_reference_dict(document) == published()
    with pytest.raises(ValueError, match="legacy_mode = True"):
        from_reference_dict(document | {"legacy_mode": True})
    with pytest.raises(ValueError, match="'order_4'"):
        from_reference_dict(
            document | {"vit_config": document["vit_config"] | {"method": "order_4"}}
        )
    with pytest.raises(ValueError, match="attention inside the levels"):
        from_reference_dict(document | {"attn_resolutions": [256]})
