"""`proximal export`: what it writes, loaded by transformers alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from components.engines.answering import Answerer
from components.errors import ArtifactError, ConfigError
from components.interface.export import export, export_adapter, require_plain, require_same_logits
from components.models.loading import load_policy, new_scalar_model, save_best_of_n, save_policy, save_scalar_model
from components.models.text import Codec, TextFormat
from flows.cli import commands

PROMPT = "a b c"
# In a process of its own, where nothing of Proximal is imported and nothing can be asked for.
ANSWER = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, prompt = sys.argv[1:]
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
read = tokenizer(prompt, return_tensors="pt")
answer = model.generate(**read, do_sample=False, max_new_tokens=12)[0, read["input_ids"].shape[1]:]
assert not [name for name in sys.modules if name.startswith("components")]
print(answer.tolist(), tokenizer.decode(answer, skip_special_tokens=True).strip(), sep="|")
"""


@pytest.fixture
def stored(word_policy: Any, word_codec: Codec, tmp_path: Path) -> Path:
    """The folder of a policy that ends at either of two tokens."""
    codec = Codec(word_codec.tokenizer, TextFormat("{prompt}", 20, 12, stop_ids=(5,)))
    save_policy(word_policy, codec, tmp_path / "policy")
    return tmp_path / "policy"


def test_transformers_alone_answers_as_the_policy_does(stored: Path, tmp_path: Path) -> None:
    written = export(stored, tmp_path / "plain", None)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", ANSWER, str(tmp_path / "plain"), PROMPT]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    tokens, text = run.stdout.strip().split("|")
    (ours,) = Answerer(stored).answer([PROMPT], temperature=0, max_response_tokens=12, seed=0)
    assert text == ours
    ends = [number for number in map(int, tokens.strip("[]").split(",")) if number in (1, 5)]
    assert len(ends) <= 1  # it went on behind none of them
    assert set(written.stop_ids) == {1, 5}
    assert written.size == sum(path.stat().st_size for path in (tmp_path / "plain").iterdir())


def test_the_weights_are_the_policys_and_rounded_if_asked(stored: Path, tmp_path: Path) -> None:
    own = load_file(stored / "model.safetensors")
    assert export(stored, tmp_path / "plain", None).rounding == 0.0
    for name, weight in load_file(tmp_path / "plain" / "model.safetensors").items():
        assert torch.equal(weight, own[name])
    written = export(stored, tmp_path / "half", "bfloat16")
    for name, weight in load_file(tmp_path / "half" / "model.safetensors").items():
        assert torch.equal(weight, own[name].bfloat16())
    assert (written.dtype, written.rounding > 0) == ("bfloat16", True)
    assert "bfloat16" in written.sentence()
    assert "rounding" in written.sentence()


def test_another_models_logits_are_refused(stored: Path) -> None:
    probe = torch.arange(6)[None]
    with torch.no_grad():
        wanted = load_policy(stored)(input_ids=probe).logits
        other = load_policy(stored)
        require_same_logits(other, probe, wanted, stored)
        other.model.norm.weight += 0.01
    with pytest.raises(ArtifactError, match="another model"):
        require_same_logits(other, probe, wanted, stored)


def test_a_policy_that_chooses_or_is_guided_has_no_plain_form(stored: Path, tmp_path: Path) -> None:
    save_scalar_model(new_scalar_model(stored, seed=1), tmp_path / "scorer")
    save_best_of_n(stored, tmp_path / "scorer", 4, tmp_path / "best")
    with pytest.raises(ArtifactError, match="best of n"):
        export(tmp_path / "best", tmp_path / "plain", None)
    assert not (tmp_path / "plain").exists()
    require_plain(stored)


def test_nothing_is_written_over(stored: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    with pytest.raises(ConfigError, match="there already"):
        export(stored, tmp_path / "mine", None)
    assert (tmp_path / "mine" / "notes").read_text() == "mine"


def test_the_command_writes_the_policy_that_is_named(stored: Path, tmp_path: Path) -> None:
    told = CliRunner().invoke(commands, ["export", str(stored), "--to", str(tmp_path / "plain")])
    assert told.exit_code == 0, told.output
    assert "a response ends at token" in told.output
    assert (tmp_path / "plain" / "config.json").exists()


def test_an_adapter_is_exported_merged(random_model: Any, word_codec: Codec, tiny_params: Any, tmp_path: Path) -> None:
    from components.config.models import Adapter
    from components.models.adapters import new_adapter_policy

    base = random_model("llama", 6, seed=5)
    base.save_pretrained(tmp_path / "base")
    adapter = Adapter(kind="dora", rank=2, alpha=4, target_modules="all-linear")
    config = tiny_params().language_model.model_copy(update={"checkpoint": str(tmp_path / "base"), "adapter": adapter})
    policy = new_adapter_policy(base, config, seed=1)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    save_policy(policy, word_codec, tmp_path / "policy")
    written = export(tmp_path / "policy", tmp_path / "plain", None)
    assert written.dtype == "float32" and not list((tmp_path / "plain").glob("adapter*"))
    tokens = torch.tensor([[2, 3, 4, 5]])
    expected, found = policy(tokens).logits, load_policy(tmp_path / "plain")(tokens).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert float((found - base_logits(tmp_path / "base", tokens)).detach().abs().max()) > 0.1

    export_adapter(tmp_path / "policy", tmp_path / "adapter")
    from peft import AutoPeftModelForCausalLM

    by_peft = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")(tokens).logits
    torch.testing.assert_close(by_peft, expected, rtol=0, atol=1e-4)
    assert not (tmp_path / "adapter" / "base.json").exists()


def test_whole_weights_have_no_adapter(stored: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no adapter"):
        export_adapter(stored, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def base_logits(folder: Path, tokens: torch.Tensor) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    logits: torch.Tensor = AutoModelForCausalLM.from_pretrained(folder)(tokens).logits
    return logits
