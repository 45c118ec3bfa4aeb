import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from idlm_ds.models import llada
from idlm_ds.models.init import InitialWeights
from idlm_ds.models.llada import LLaDA, LLaDAConfig, RMSNorm, initial_value
from idlm_ds.tensor_types import NetworkInput, SoftInput
from tests import mixtures

from ..tolerances import assert_close
from . import reference

V, BATCH, LENGTH = 13, 3, 6
SMALL = LLaDAConfig(vocab_size=V, hidden=24, blocks=2, heads=3, ffn=40)
FRUGAL = replace(SMALL, checkpoint_activations=True)
SIGMA = torch.tensor([0.1, 1.0, 5.0])
EVERY = torch.arange(BATCH * LENGTH)


def random_network(config: LLaDAConfig = SMALL) -> LLaDA:
    """Words are short vectors, so that the epsilon of the norms matters."""
    made = LLaDA(config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            weight.normal_(generator=generator)
            if "norm" in name or "ln_f" in name:
                weight.mul_(0.3).add_(1)
            else:
                weight.mul_(0.01 if "wte" in name else weight.shape[1] ** -0.5)
    return made


def answers(model: LLaDA, x: NetworkInput) -> Tensor:
    return model(x, SIGMA, lambda head: head.scores(EVERY)).view(BATCH, LENGTH, V)


def by_the_book(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    return reference.llada(weights, x, blocks=2, heads=3, base=500_000.0, eps=1e-5)


def soft(scores: Tensor) -> SoftInput:
    return mixtures.of_rows(scores.flatten(0, 1), tuple(scores.shape[:2]))


@pytest.fixture
def tokens(generator) -> Tensor:
    return torch.randint(0, V, (BATCH, LENGTH), generator=generator)


@pytest.fixture
def scores(generator) -> Tensor:
    return 3 * torch.randn(BATCH, LENGTH, V, generator=generator)


@pytest.fixture
def direction(generator) -> Tensor:
    return torch.randn(BATCH, LENGTH, V, generator=generator)


def test_parameters_have_the_published_names_and_shapes():
    with torch.device("meta"):
        model = LLaDA(LLaDAConfig())
    square, wide = (4096, 4096), (12_288, 4096)
    expected = {
        "model.transformer.wte.weight": (126_464, 4096),
        "model.transformer.ln_f.weight": (4096,),
        "model.transformer.ff_out.weight": (126_464, 4096),
    }
    for i in range(32):
        block = f"model.transformer.blocks.{i}"
        expected |= {
            f"{block}.{name}.weight": square for name in ("q_proj", "k_proj", "v_proj", "attn_out")
        }
        expected |= {f"{block}.{name}.weight": wide for name in ("ff_proj", "up_proj")}
        expected |= {f"{block}.ff_out.weight": wide[::-1]}
        expected |= {f"{block}.{name}.weight": (4096,) for name in ("attn_norm", "ff_norm")}
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == expected


@torch.no_grad()
def test_answers_are_those_of_the_published_forward_pass(tokens, scores):
    model = random_network()
    for x, shown in ((tokens, tokens), (scores, soft(scores))):
        expected = by_the_book(model.state_dict(), x)
        assert expected.std() > 0.5
        assert_close(answers(model, shown), expected.float())


def test_gradients_are_those_of_the_published_forward_pass(scores, direction):
    model = random_network()
    weights = {n: p.detach().double().requires_grad_() for n, p in model.named_parameters()}
    exact = scores.double().requires_grad_()
    expected = by_the_book(weights, exact)
    expected = torch.autograd.grad((expected * direction).sum(), [exact, *weights.values()])
    scores.requires_grad_()
    got = torch.autograd.grad(
        (answers(model, soft(scores)) * direction).sum(), [scores, *model.parameters()]
    )
    for name, a, b in zip(["scores", *weights], got, expected, strict=True):
        assert (a - b).norm() < 1e-5 * b.norm(), name
        assert b.norm() > 1e-3, name


@torch.no_grad()
def test_sure_soft_input_gives_the_answers_of_hard_input(tokens):
    model = random_network()
    assert_close(answers(model, soft(200.0 * F.one_hot(tokens, V))), answers(model, tokens))


@torch.no_grad()
def test_time_does_not_matter(tokens):
    model = random_network()
    at_infinity = model(tokens, torch.full((BATCH,), math.inf), lambda head: head.scores(EVERY))
    assert at_infinity.view(BATCH, LENGTH, V).equal(answers(model, tokens))


@torch.no_grad()
def test_answers_at_some_positions_are_a_slice_of_the_answers_everywhere(tokens, scores):
    model = random_network()
    some = torch.tensor([0, 4, 7, 11, 17])
    for x in (tokens, soft(scores)):
        expected = answers(model, x).flatten(0, 1)[some]
        assert_close(model(x, SIGMA, lambda head: head.scores(some)), expected)
        pieces = model(x, SIGMA, lambda head: torch.cat([head.scores(p) for p in some.split(2)]))
        assert_close(pieces, expected)
        assert model(x, SIGMA, lambda head: head.scores(some[:0])).shape == (0, V)


@torch.no_grad()
def test_every_position_sees_every_other(tokens):
    model = random_network()
    before = answers(model, tokens)
    for position in (0, LENGTH - 1):
        changed = tokens.clone()
        changed[0, position] = (changed[0, position] + 1) % V
        difference = (answers(model, changed) - before).abs().amax(-1)
        assert (difference[0] > 1e-4).all()
        assert (difference[1:] == 0).all()


@torch.no_grad()
def test_the_answer_about_a_position_is_given_at_that_position(tokens):
    model = LLaDA(replace(SMALL, hidden=14, heads=1))
    for name, weight in model.named_parameters():
        # Words are orthogonal, the blocks add nothing, the head compares with the words.
        if name.endswith(("wte.weight", "transformer.ff_out.weight")):
            weight.copy_(torch.eye(V, 14))
        else:
            weight.fill_("norm" in name or "ln_f" in name)
    assert answers(model, tokens).argmax(-1).equal(tokens)


def backward(config: LLaDAConfig, x: NetworkInput, direction: Tensor, trained: str) -> dict:
    """Answers and gradients, by name, with every weight frozen whose name lacks ``trained``."""
    model = random_network(config)
    for name, weight in model.named_parameters():
        weight.requires_grad_(trained in name)
    calls = []
    for block in model.model["transformer"].blocks:
        block.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    got = answers(model, x)
    found = {"answers": got.detach()}
    if got.requires_grad:
        (got * direction).sum().backward()
    if isinstance(x, SoftInput) and x.requires_grad:
        found["x"], x.scores.grad = x.scores.grad, None
    found |= {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    found["calls"] = len(calls)
    return found


@pytest.mark.parametrize("trained", ["", "blocks.1.ff_norm", "blocks.0", "nothing"])
@pytest.mark.parametrize("is_soft", [False, True], ids=["hard", "soft"])
def test_computing_activations_again_changes_no_gradient(
    tokens, scores, direction, trained, is_soft
):
    x = soft(scores) if is_soft else tokens
    if is_soft:
        x.scores.requires_grad_()
    plain = backward(SMALL, x, direction, trained)
    frugal = backward(FRUGAL, x, direction, trained)
    assert plain.pop("calls") == 2
    # A block is run again where a gradient has to pass through it, and only there.
    reached = 0 if trained == "nothing" else 1 if trained == "blocks.1.ff_norm" else 2
    assert frugal.pop("calls") == 2 + (2 if is_soft else reached)
    assert set(plain) == set(frugal)
    assert ("x" in plain) == is_soft
    for name, value in plain.items():
        assert value.equal(frugal[name]), name


def test_answers_without_a_graph_run_each_block_once(tokens, direction):
    with torch.no_grad():
        assert backward(FRUGAL, tokens, direction, "")["calls"] == 2


@torch.no_grad()
def test_a_network_in_16_bits_answers_in_float32(tokens):
    model = random_network()
    expected = answers(model, tokens)
    got = answers(model.bfloat16(), tokens)
    assert got.dtype == torch.float32
    assert F.cosine_similarity(got.flatten(), expected.flatten(), dim=0) > 0.99


@torch.no_grad()
def test_norms_and_rotations_in_16_bits_round_once(generator, monkeypatch):
    norm = RMSNorm(64, 1e-5).bfloat16()
    norm.weight.normal_(generator=generator)
    x = torch.randn(200, 64, generator=generator).bfloat16()
    exact = norm.weight.double() * x.double()
    exact = exact / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt()
    assert (norm(x) == exact.bfloat16()).float().mean() > 0.99

    block = random_network().bfloat16().model["transformer"].blocks[0]
    shown, attended = [], []
    block.q_proj.register_forward_hook(lambda _, __, out: shown.append(out))
    plain = llada.attend
    monkeypatch.setattr(llada, "attend", lambda *qkv: attended.append(qkv) or plain(*qkv))
    h = torch.randn(1, 200, 24, generator=generator).bfloat16()
    block(h, *llada.rotary_angles(200, 8, device=h.device, base=500_000.0))
    exact = reference.rotated(shown[0].double().unflatten(-1, (3, 8)), 500_000.0).transpose(1, 2)
    assert (attended[0][0] == exact.bfloat16()).float().mean() > 0.99


def test_norms_start_at_one_and_matrices_with_a_deviation_of_a_fiftieth():
    with torch.device("meta"):
        model = LLaDA(replace(SMALL, vocab_size=500))
    source = InitialWeights(initial_value, seed=0)
    for name, parameter in model.named_parameters():
        values = source.read(name, tuple(parameter.shape), 0, parameter.numel())
        if "norm" in name or "ln_f" in name:
            assert (values == 1).all(), name
        else:
            # Six standard errors of a deviation.
            assert abs(values.std() / 0.02 - 1) < 6 * (2 * len(values)) ** -0.5, name
            assert abs(values.mean()) < 6 * 0.02 * len(values) ** -0.5, name
