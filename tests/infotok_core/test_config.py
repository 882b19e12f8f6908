from __future__ import annotations

import dataclasses
import json
import math

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
        ({"channels_mult": (1, 0)}, "each at least 1"),
        ({"channels": 0}, "channels must be at least 1"),
        ({"z_channels": -8}, "z_channels must be at least 1"),
        ({"num_res_blocks": -1}, "num_res_blocks must be at least 0"),
        ({"latent_router": -1}, "latent_router must be at least 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(mini(), **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 0}, "heads must be at least 1"),
        ({"hidden": 0}, "hidden must be at least 1"),
        ({"mlp_hidden": 0}, "mlp_hidden must be at least 1"),
        ({"max_frames": 0}, "max_frames must be at least 1"),
        ({"max_positions": 0}, "max_positions must be at least 1"),
        ({"heads": 3}, "hidden 128 over 3 heads"),
        ({"decoder_layers": -1}, "decoder_layers must be at least 0"),
        ({"theta": -1.0}, "theta must be a finite number above 0"),
        ({"norm_eps": math.nan}, "norm_eps must be a finite number above 0"),
        ({"init_std": math.inf}, "init_std must be a finite number above 0"),
    ],
)
def test_transformers_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(mini().transformer, **change)


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
