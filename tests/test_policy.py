import json

import pytest
from flexq.policy import PAPER, Policy, matches

DOWN = "model.layers.0.mlp.down_proj"


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        (DOWN, DOWN, True),
        ("down_proj", DOWN, True),
        ("mlp.down_proj", DOWN, True),
        ("own_proj", DOWN, False),
        ("re:down", DOWN, False),
        ("re:.*down", DOWN, True),
        (r"re:layers\.[13]\.", DOWN, False),
        ("model.layers.0", DOWN, False),
    ],
)
def test_patterns(pattern, name, expected):
    assert matches(pattern, name) is expected


def test_the_first_match_counts():
    policy = Policy(6, {DOWN: 16, "down_proj": 8})
    assert policy.bits(DOWN) == 16
    assert policy.bits("model.layers.1.mlp.down_proj") == 8
    assert policy.bits("lm_head") == 6


def test_the_papers_policy():
    assert PAPER.bits(DOWN) == 8
    assert PAPER.bits("model.layers.0.mlp.up_proj") == 6


def test_files_and_model_directories(tmp_path):
    policy = Policy(8, {"re:o_proj$": 6})
    policy.save(tmp_path / "policy.json")
    assert Policy.load(tmp_path / "policy.json") == policy
    config = {"quantization_config": {"quant_method": "flexq"} | policy.to_config()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Policy.load(tmp_path) == policy
    (tmp_path / "config.json").write_text("{}")
    assert Policy.load(tmp_path) == Policy(16)


def test_bad_policies_are_refused(tmp_path):
    with pytest.raises(ValueError, match="act_bits: expected 16, 8 or 6 bits, found 7"):
        Policy(7)
    with pytest.raises(ValueError, match="down_proj: expected 16, 8 or 6 bits, found '8'"):
        Policy(6, {"down_proj": "8"})
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="expected a JSON object, found list"):
        Policy.load(tmp_path / "list.json")
