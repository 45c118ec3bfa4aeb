import torch
from torch import nn

from idlm_ds.models import causal, dit
from idlm_ds.models.init import InitialWeights

SHAPE = (7, 5)


def weights(seed: int = 0) -> InitialWeights:
    return InitialWeights(dit.initial_value, seed=seed)


def test_a_part_of_a_tensor_is_the_same_whatever_part_is_read():
    name = "blocks.0.attn_qkv.weight"
    whole = weights().read(name, SHAPE, 0, 35)
    assert whole.dtype == torch.float32
    for cuts in ([0, 35], [0, 1, 17, 35], [0, 12, 24, 35]):
        source = weights()
        pieces = [source.read(name, SHAPE, a, b) for a, b in zip(cuts, cuts[1:], strict=False)]
        assert torch.cat(pieces).equal(whole)


def test_a_tensor_does_not_depend_on_what_was_read_before_it():
    source = weights()
    source.read("vocab_embed.embedding", (100, 5), 0, 500)
    state = torch.random.get_rng_state()
    got = source.read("blocks.1.mlp.0.weight", SHAPE, 0, 35)
    assert got.equal(weights().read("blocks.1.mlp.0.weight", SHAPE, 0, 35))
    assert torch.random.get_rng_state().equal(state)


def test_names_and_seeds_have_their_own_values():
    reads = [
        weights(seed).read(name, SHAPE, 0, 35)
        for seed in (0, 1)
        for name in ("blocks.0.mlp.0.weight", "blocks.1.mlp.0.weight")
    ]
    assert len({tuple(values.tolist()) for values in reads}) == 4


def test_linear_weights_and_embedding_start_as_pytorch_draws_them():
    values = weights().read("blocks.0.mlp.2.weight", (300, 100), 0, 30_000)
    bound = 100**-0.5
    assert values.abs().max() <= bound
    assert values.abs().max() > 0.99 * bound
    # The variance of a uniform number on (-b, b) is b² / 3; of 30 000, known to about 0.5 %.
    assert abs(values.var() / (bound**2 / 3) - 1) < 0.03
    assert abs(values.mean()) < 0.02 * bound
    reference = nn.Linear(100, 300)
    assert abs(reference.weight.abs().max().item() / bound - 1) < 0.01


def test_gates_modulations_and_outputs_start_at_zero_and_norms_at_one():
    config = dit.DiTConfig(vocab_size=11, hidden=8, blocks=2, heads=2, cond=4)
    with torch.device("meta"):
        model = dit.DiT(config)
    for name, parameter in model.named_parameters():
        values = weights().read(name, tuple(parameter.shape), 0, parameter.numel())
        if "norm" in name:
            assert (values == 1).all(), name
        elif name.endswith("bias") or "adaLN" in name or "output_layer.linear" in name:
            assert (values == 0).all(), name
        else:
            assert values.std() > 0, name


def test_judge_weights_start_as_in_gpt2():
    source = InitialWeights(causal.initial_value, seed=0)
    matrix = source.read("lm.transformer.h.0.attn.c_attn.weight", (200, 100), 0, 20_000)
    assert abs(matrix.std().item() / 0.02 - 1) < 0.03
    assert (source.read("lm.transformer.ln_f.weight", (5,), 0, 5) == 1).all()
    assert (source.read("lm.transformer.ln_f.bias", (5,), 0, 5) == 0).all()
