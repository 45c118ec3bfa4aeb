import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from idlm_ds.models.dit import DiT, DiTConfig, initial_value
from idlm_ds.models.init import InitialWeights
from tests import mixtures

from ..tolerances import assert_close

V, BATCH, LENGTH = 13, 3, 6
SMALL = DiTConfig(vocab_size=V, hidden=24, blocks=2, heads=3, cond=8)
TIMED = replace(SMALL, time_conditioning=True)
SIGMA = torch.tensor([0.1, 1.0, 5.0])


def random_network(config: DiTConfig, generator: torch.Generator) -> DiT:
    """A network in which no gate is closed."""
    made = DiT(config).eval()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            weight.normal_(std=0.3, generator=generator)
            if "norm" in name:
                weight.add_(1)
    return made


def initial_network(config: DiTConfig) -> DiT:
    made = DiT(config).eval()
    source = InitialWeights(initial_value, seed=0)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            values = source.read(name, tuple(weight.shape), 0, weight.numel())
            weight.copy_(values.view_as(weight))
    return made


@torch.no_grad()
def everywhere(model: DiT, x: Tensor, sigma: Tensor = SIGMA) -> Tensor:
    every = torch.arange(x.shape[0] * x.shape[1])
    return model(x, sigma, lambda head: head.scores(every)).view(*x.shape[:2], -1)


@torch.no_grad()
def by_the_book(model: DiT, x: Tensor, sigma: Tensor) -> Tensor:
    """The published forward pass in float64, written from its description."""
    w = {name: value.double() for name, value in model.state_dict().items()}
    config = model.config
    width = config.hidden // config.heads

    def linear(name: str, h: Tensor) -> Tensor:
        bias = w.get(f"{name}.bias")
        return h @ w[f"{name}.weight"].T + (0 if bias is None else bias)

    def norm(name: str, h: Tensor) -> Tensor:
        centred = h - h.mean(-1, keepdim=True)
        variance = centred.pow(2).mean(-1, keepdim=True)
        return w[f"{name}.weight"] * centred / (variance + 1e-5).sqrt()

    def turned(h: Tensor) -> Tensor:
        # (B, L, H, E): the pair (i, i + E/2) is one complex number.
        half = width // 2
        position = torch.arange(h.shape[1], dtype=torch.float64)
        frequency = 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = (position[:, None] * frequency)[:, None]
        pairs = torch.complex(h[..., :half], h[..., half:])
        pairs = pairs * torch.polar(torch.ones_like(angle), angle)
        return torch.cat([pairs.real, pairs.imag], -1)

    noise = sigma.double() if config.time_conditioning else torch.zeros(len(x)).double()
    angle = noise[:, None] * 10_000.0 ** (-torch.arange(128, dtype=torch.float64) / 128)
    c = linear("sigma_map.mlp.0", torch.cat([angle.cos(), angle.sin()], -1))
    c = F.silu(linear("sigma_map.mlp.2", F.silu(c)))[:, None]
    h = w["vocab_embed.embedding"][x]
    for i in range(config.blocks):
        block = f"blocks.{i}"
        modulation = linear(f"{block}.adaLN_modulation", c)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation.chunk(6, -1)
        qkv = linear(f"{block}.attn_qkv", norm(f"{block}.norm1", h) * (1 + scale_a) + shift_a)
        q, k, v = qkv.unflatten(-1, (3, config.heads, width)).unbind(2)
        scores = torch.einsum("blhe,bmhe->bhlm", turned(q), turned(k)) / math.sqrt(width)
        mixed = torch.einsum("bhlm,bmhe->blhe", scores.softmax(-1), v).flatten(2)
        h = h + gate_a * linear(f"{block}.attn_out", mixed)
        inner = linear(f"{block}.mlp.0", norm(f"{block}.norm2", h) * (1 + scale_m) + shift_m)
        h = h + gate_m * linear(f"{block}.mlp.2", F.gelu(inner, approximate="tanh"))
    shift, scale = linear("output_layer.adaLN_modulation", c).chunk(2, -1)
    return linear("output_layer.linear", norm("output_layer.norm_final", h) * (1 + scale) + shift)


@pytest.fixture
def tokens(generator) -> Tensor:
    return torch.randint(0, V, (BATCH, LENGTH), generator=generator)


def test_parameters_have_the_published_names_order_and_shapes():
    with torch.device("meta"):
        model = DiT(SMALL)
    d, c, n = 24, 8, V
    expected = [
        ("vocab_embed.embedding", (n, d)),
        ("sigma_map.mlp.0.weight", (c, 256)),
        ("sigma_map.mlp.0.bias", (c,)),
        ("sigma_map.mlp.2.weight", (c, c)),
        ("sigma_map.mlp.2.bias", (c,)),
    ]
    for i in range(2):
        expected += [
            (f"blocks.{i}.norm1.weight", (d,)),
            (f"blocks.{i}.attn_qkv.weight", (3 * d, d)),
            (f"blocks.{i}.attn_out.weight", (d, d)),
            (f"blocks.{i}.norm2.weight", (d,)),
            (f"blocks.{i}.mlp.0.weight", (4 * d, d)),
            (f"blocks.{i}.mlp.0.bias", (4 * d,)),
            (f"blocks.{i}.mlp.2.weight", (d, 4 * d)),
            (f"blocks.{i}.mlp.2.bias", (d,)),
            (f"blocks.{i}.adaLN_modulation.weight", (6 * d, c)),
            (f"blocks.{i}.adaLN_modulation.bias", (6 * d,)),
        ]
    expected += [
        ("output_layer.norm_final.weight", (d,)),
        ("output_layer.linear.weight", (n, d)),
        ("output_layer.linear.bias", (n,)),
        ("output_layer.adaLN_modulation.weight", (2 * d, c)),
        ("output_layer.adaLN_modulation.bias", (2 * d,)),
    ]
    assert [(name, tuple(p.shape)) for name, p in model.named_parameters()] == expected
    assert list(model.state_dict()) == [name for name, _ in expected]


@pytest.mark.parametrize("config", [SMALL, TIMED], ids=["without time", "with time"])
def test_answers_are_those_of_the_published_forward_pass(config, tokens, generator):
    model = random_network(config, generator)
    expected = by_the_book(model, tokens, SIGMA)
    # Sums of a few hundred float32 products of size one.
    torch.testing.assert_close(everywhere(model, tokens).double(), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.5


def test_sure_soft_input_gives_the_answers_of_hard_input(tokens, generator):
    model = random_network(SMALL, generator)
    scores = mixtures.of_rows(200.0 * F.one_hot(tokens.flatten(), V), tuple(tokens.shape))
    assert_close(everywhere(model, scores), everywhere(model, tokens))


def test_without_time_conditioning_the_noise_is_ignored(tokens, generator):
    model = random_network(SMALL, generator)
    first = everywhere(model, tokens, SIGMA)
    assert everywhere(model, tokens, torch.full((BATCH,), math.inf)).equal(first)
    model.config = TIMED
    assert everywhere(model, tokens, torch.zeros(BATCH)).equal(first)


def test_with_time_conditioning_each_sequence_is_answered_at_its_own_noise(tokens, generator):
    model = random_network(TIMED, generator)
    before = everywhere(model, tokens)
    after = everywhere(model, tokens, torch.tensor([0.1, 2.0, 5.0]))
    assert after[[0, 2]].equal(before[[0, 2]])
    assert (after[1] - before[1]).abs().amax(-1).min() > 1e-3
    alone = everywhere(model, tokens[2:], SIGMA[2:])
    assert_close(alone[0], before[2])


def test_answers_at_some_positions_are_a_slice_of_the_answers_everywhere(tokens, generator):
    model = random_network(TIMED, generator)
    some = torch.tensor([0, 4, 7, 11, 17])
    with torch.no_grad():
        got = model(tokens, SIGMA, lambda head: head.scores(some))
        pieces = model(
            tokens, SIGMA, lambda head: torch.cat([head.scores(some[:2]), head.scores(some[2:])])
        )
        nothing = model(tokens, SIGMA, lambda head: head.scores(some[:0]))
    expected = everywhere(model, tokens).flatten(0, 1)[some]
    assert_close(got, expected)
    assert_close(pieces, expected)
    assert nothing.shape == (0, V)


@pytest.mark.parametrize("config", [SMALL, TIMED], ids=["without time", "with time"])
def test_the_first_answer_of_a_new_network_is_uniform(config, tokens):
    raw = everywhere(initial_network(config), tokens)
    assert (raw == 0).all()


def test_the_blocks_of_a_new_network_change_nothing(tokens, generator):
    model = initial_network(SMALL)
    with torch.no_grad():
        model.output_layer.linear.weight.normal_(generator=generator)
    before = everywhere(model, tokens)
    changed = tokens.clone()
    changed[:, -1] = (changed[:, -1] + 1) % V
    after = everywhere(model, changed)
    assert_close(after[:, :-1], before[:, :-1])
    assert (after[:, -1] - before[:, -1]).abs().max() > 0.1


def test_every_position_sees_every_other(tokens, generator):
    model = random_network(SMALL, generator)
    before = everywhere(model, tokens)
    for position in (0, LENGTH - 1):
        changed = tokens.clone()
        changed[0, position] = (changed[0, position] + 1) % V
        difference = (everywhere(model, changed) - before).abs().amax(-1)
        assert (difference[0] > 1e-4).all()
        assert (difference[1:] == 0).all()


def test_order_matters(generator):
    model = random_network(SMALL, generator)
    forward = torch.tensor([[1, 2, 3]])
    answers = everywhere(model, forward, SIGMA[:1])
    backward = everywhere(model, forward.flip(1), SIGMA[:1])
    assert (answers[0, 1] - backward[0, 1]).abs().max() > 1e-3


def test_a_network_in_16_bits_answers_in_float32(tokens, generator):
    model = random_network(SMALL, generator)
    expected = everywhere(model, tokens)
    got = everywhere(model.bfloat16(), tokens)
    assert got.dtype == torch.float32
    assert F.cosine_similarity(got.flatten(), expected.flatten(), dim=0) > 0.99


def test_dropout_acts_in_training_only(tokens, generator):
    model = random_network(replace(SMALL, dropout=0.5), generator)
    assert everywhere(model, tokens).equal(everywhere(model, tokens))
    model.train()
    assert not everywhere(model, tokens).equal(everywhere(model, tokens))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_activations_computed_twice_give_the_same_gradients(dropout, generator):
    plain = random_network(replace(TIMED, dropout=dropout), generator)
    frugal = DiT(replace(TIMED, dropout=dropout, checkpoint_activations=True))
    frugal.load_state_dict(plain.state_dict())
    x = torch.randint(V, (BATCH, LENGTH), generator=generator)
    gradients, calls = [], []
    for network in (plain, frugal):
        counted: list[int] = []
        network.blocks[0].register_forward_pre_hook(lambda *_, c=counted: c.append(1))
        torch.manual_seed(3)
        everywhere = torch.arange(BATCH * LENGTH)
        out = network.train()(x, SIGMA, lambda head, e=everywhere: head.scores(e))
        out.square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])
        calls.append(len(counted))
    assert calls == [1, 2]
    assert all(a.equal(b) for a, b in zip(*gradients, strict=True))
