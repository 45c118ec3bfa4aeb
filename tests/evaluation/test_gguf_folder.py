import json

import gguf
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from idlm_ds.build.judges import open_judge
from idlm_ds.errors import UserError
from idlm_ds.evaluation.gguf_folder import SEPARATOR, convert_gguf

WORDS = [SEPARATOR, "<|im_start|>", *"abc0123Ġ", "ab", "Ġab", "12"]
MERGES = ["a b", "Ġ ab", "1 2"]
KINDS = [3, 3] + [1] * (len(WORDS) - 2)
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request):
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=24,
        rms_norm_eps=1e-4,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        tie_word_embeddings=request.param,
    )
    made = LlamaForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in made.parameters():
            # Exact in float16, so that the folder holds the same weights.
            weight.copy_((0.3 * torch.randn(weight.shape, generator=generator)).half())
    return made


def side_by_side(weight, heads):
    """Rows of queries or keys as GGUF keeps them: i and i + half of a head as neighbours."""
    rows = []
    for head in weight.chunk(heads):
        first, second = head.chunk(2)
        for pair in zip(first, second, strict=True):
            rows += pair
    return torch.stack(rows)


def write_gguf(path, model, *, pre="smollm", words=WORDS):
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_license("mit")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(words)
    writer.add_token_types(KINDS)
    writer.add_token_merges(MERGES)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if name.endswith("q_proj.weight"):
            weight = side_by_side(weight, config.num_attention_heads)
        if name.endswith("k_proj.weight"):
            weight = side_by_side(weight, config.num_key_value_heads)
        writer.add_tensor(gguf_name(name), weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_name(name):
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    stem = name.removesuffix(".weight")
    if stem in whole:
        return f"{whole[stem]}.weight"
    _, _, block, part = stem.split(".", 3)
    return f"blk.{block}.{NAMES[part]}.weight"


def test_the_folder_holds_the_same_model(model, tmp_path):
    parameters = convert_gguf(write_gguf(tmp_path / "m.gguf", model), tmp_path / "folder")
    assert parameters == sum(p.numel() for p in model.parameters())
    judge = open_judge(tmp_path / "folder")
    ids = torch.tensor([[0, 2, 3, 10, 11, 5, 6, 7, 1, 4]])
    with torch.no_grad():
        expected, got = model(input_ids=ids).logits, judge.model(input_ids=ids).logits
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert judge.context == 24
    origin = json.loads((tmp_path / "folder" / "origin.json").read_text())
    assert (origin["file"], origin["name"], origin["license"]) == ("m.gguf", "tiny", "mit")


@pytest.mark.parametrize("model", [True], indirect=True)
def test_the_tokenizer_splits_digits_and_frames_texts_by_the_separator(model, tmp_path):
    convert_gguf(write_gguf(tmp_path / "m.gguf", model), tmp_path / "folder")
    judge = open_judge(tmp_path / "folder")
    encoded = judge.encode([f"ab ab12{SEPARATOR}c"])
    tokens = [WORDS[i] for i in encoded.ids[0].tolist()]
    assert tokens == [SEPARATOR, "ab", "Ġab", "1", "2", SEPARATOR, "c"]
    assert judge.prefix_bos
    assert judge.tokenizer.decode(encoded.ids[0, 1:5]) == "ab ab12"
    convert_gguf(write_gguf(tmp_path / "gpt2.gguf", model, pre="gpt-2"), tmp_path / "gpt2")
    ids = open_judge(tmp_path / "gpt2").encode(["ab12"]).ids[0, 1:]
    assert [WORDS[i] for i in ids.tolist()] == ["ab", "12"]


@pytest.mark.parametrize("model", [True], indirect=True)
def test_what_cannot_be_a_judge_is_refused(model, tmp_path):
    with pytest.raises(UserError, match="tokenizer gpt2/llama-bpe; allowed: gpt2/smollm"):
        convert_gguf(write_gguf(tmp_path / "a.gguf", model, pre="llama-bpe"), tmp_path / "a")
    other = ["<s>", *WORDS[1:]]
    with pytest.raises(UserError, match=r"lacks <\|endoftext\|>"):
        convert_gguf(write_gguf(tmp_path / "b.gguf", model, words=other), tmp_path / "b")
    (tmp_path / "text.gguf").write_text("not a model")
    with pytest.raises(UserError, match=r"text\.gguf: not a GGUF file"):
        convert_gguf(tmp_path / "text.gguf", tmp_path / "c")
    assert not any((tmp_path / name).exists() for name in "abc")
    (tmp_path / "d").mkdir()
    with pytest.raises(UserError, match="d: exists already"):
        convert_gguf(write_gguf(tmp_path / "d.gguf", model), tmp_path / "d")
