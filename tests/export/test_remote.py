"""Exported folders, run by a process that has torch and transformers only."""

import copy
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from transformers.dynamic_module_utils import get_imports

import idlm_ds
from idlm_ds.checkpoints.formats.public import read_public
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.noise import Noise
from idlm_ds.processes.base import at
from idlm_ds.processes.latent import show_latent
from idlm_ds.samplers.batched import sample_batched
from idlm_ds.samplers.blockwise import sample_blockwise
from idlm_ds.samplers.config import SamplerConfig
from tests.export.isolated import (
    BLOCKWISE,
    EVERY,
    MASKED,
    PROMPTS,
    SEED,
    STEPS,
    ids_of,
    process_of,
    samples_of,
    student_of,
)
from tests.export.students import (
    CARDS,
    LENGTH,
    LLADA_MASK,
    WORDS,
    card_of,
    is_llada,
    latent_of,
    network_of,
    random_weights,
)

sys.path.insert(0, str(Path(idlm_ds.__file__).parents[1] / "launchers"))
import sample


def test_no_file_asks_for_a_package_that_may_be_missing(seen):
    """Transformers refuses a file for any import it finds in it, run or not."""
    files = [path for folder in seen.folders.values() for path in folder.glob("*.py")]
    assert len(files) > 100
    asked = {package for path in files for package in get_imports(path)}
    assert asked - sys.stdlib_module_names == {"torch", "transformers"}


@pytest.mark.parametrize("name", EVERY)
def test_logits_are_those_of_the_network_bit_for_bit(seen, name):
    dtype = torch.bfloat16 if "bfloat16" in name else torch.float32
    x = seen.inputs[ids_of(name)]
    student, sigma = student_of(name), seen.inputs["sigma"]
    network, z = network_of(student, dtype), seen.inputs["latents"]
    z = z if latent_of(student) else None
    shown = show_latent(process_of(student), x, z, x_t=x, sigma=sigma)
    wanted = network(shown, sigma, at(torch.arange(x.numel()))).view(*x.shape, -1)
    assert torch.equal(seen.found[f"{name}/logits"], wanted)
    assert wanted.std() > 0.1
    if f"{name}/logits after saving" in seen.found:
        assert torch.equal(seen.found[f"{name}/logits after saving"], wanted)


def test_noise_that_is_not_told_is_what_the_masks_say(seen):
    x = seen.inputs["last is mask"]
    sigma = -torch.log1p(-(x == WORDS).double().mean(1))
    wanted = network_of("sedd")(x, sigma, at(torch.arange(x.numel())))
    assert torch.equal(seen.found["sedd/logits without timesteps"].flatten(0, 1), wanted)
    assert not torch.equal(seen.found["sedd/logits without timesteps"], seen.found["sedd/logits"])


@pytest.mark.parametrize("name", CARDS)
def test_samples_of_a_seed_are_those_this_package_draws(seen, name):
    process, network = process_of(name), network_of(name)
    for label, settings in samples_of(name).items():
        if not label.startswith("chain"):
            continue
        asked = {k: v for k, v in settings.items() if k not in ("num_samples", "seed", "batch")}
        length = asked.pop("length", LENGTH)
        wanted = sample_batched(
            process, network, range(4),
            SamplerConfig(**{"steps": STEPS, "latent": latent_of(name), **asked}),
            length=length, seed=SEED, stream="sample", batch=4,
        ).tokens  # fmt: skip
        assert torch.equal(seen.found[f"{name}/samples {label}"], wanted), label
        assert len(wanted.unique()) > 3


@pytest.mark.parametrize("name", EVERY)
def test_a_watcher_is_shown_the_states_of_every_batch(seen, name):
    for label in samples_of(name):
        last_states = seen.found[f"{name}/last states {label}"]
        assert torch.equal(last_states, seen.found[f"{name}/samples {label}"]), label


@pytest.mark.parametrize("name", ["mdlm", "duo", "mdlm-latent"])
def test_samples_of_a_seed_are_those_the_launcher_prints(seen, name, capsys):
    own = seen.folders[name].parent / "own" / name
    asked = ("--steps", STEPS, "--seed", SEED, "--num-samples", 4, "--checkpoint", own)
    sample.main([str(a) for a in asked])
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    texts = Tokenizer(own).decode(seen.found[f"{name}/samples chain 0"].tolist())
    assert printed == [f"| {' '.join(text.split())}" for text in texts]


@pytest.mark.parametrize("name", ["mdlm", "sedd", "llada", "mdlm-latent", "llada-latent"])
def test_prompts_are_continued_as_this_package_continues_them(seen, name):
    process, network = process_of(name), network_of(name)
    for i, settings in enumerate(copy.deepcopy(BLOCKWISE)):
        arguments = {"temperature": 1.0, "length": LENGTH - 3, **settings}
        arguments.setdefault("block", arguments["length"])
        arguments["latent"] = latent_of(name)
        noise = Noise.of_samples(SEED, "sample", samples=range(3))
        wanted = sample_blockwise(
            process, network, torch.tensor(PROMPTS), noise=noise, **arguments
        ).tokens
        got = seen.found[f"{name}/samples blockwise {i}"]
        assert torch.equal(got, wanted)
        assert got[:, :3].tolist() == PROMPTS


@pytest.mark.parametrize("name", EVERY)
def test_fine_tuning_moves_weights_and_lowers_the_loss(seen, name):
    losses = seen.told[f"{name}/losses"]
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]
    assert seen.told[f"{name}/moved"] > 20
    noised = seen.found[f"{name}/noised"]
    assert 0 < (noised != seen.inputs["clean"]).sum() < noised.numel()


@pytest.mark.parametrize("name", ["mdlm", "llada"])
def test_the_loss_of_masked_families_is_cross_entropy_at_masked_positions(seen, name):
    process, clean = process_of(name), seen.inputs["clean"]
    x = seen.found[f"{name}/noised"]
    positions = process.undecided(x)
    raw = network_of(name)(x, torch.zeros(3), at(positions))
    words = clean.flatten()[positions]
    wanted = torch.nn.functional.cross_entropy(process.predict(raw), words).item()
    assert seen.told[f"{name}/losses"][0] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_what_cannot_be_done_is_refused_in_words(seen, name):
    told = {k: v for k, v in seen.told.items() if k.startswith(f"{name}/refused")}
    assert None not in told.values()
    assert told[f"{name}/refused setting"] == "block: means nothing to sampler ancestral"
    assert told[f"{name}/refused choice"].startswith("sampler: must be one of ancestral, analytic")
    if name not in MASKED:
        assert "timesteps: needed" in told[f"{name}/refused timesteps"]
    given = "None" if latent_of(student_of(name)) else "(3, 12, 6)"
    refusal = told[f"{name}/refused latents"]
    assert refusal.startswith("latents: this network takes")
    assert refusal.endswith(given)


@pytest.mark.parametrize("name", CARDS)
def test_defaults_survive_saving(seen, name):
    assert seen.told[f"{name}/settings after saving"] == STEPS
    config = json.loads((seen.folders[name] / "config.json").read_text())
    assert seen.told[f"{name}/family after saving"] == config["process"]
    assert seen.told[f"{name}/class"] == ("LLaDAModelLM" if is_llada(name) else "IDLMForMaskedLM")
    assert seen.told["llada in bfloat16/dtype"] == "torch.bfloat16"


@pytest.mark.parametrize("name", CARDS)
def test_this_package_reads_what_it_exports(seen, name):
    card, weights = card_of(name), random_weights(card_of(name))
    model = read_public(seen.folders[name])
    about = model.about
    assert about.layout == ("llada" if is_llada(name) else "hugging_face")
    assert model.weights.names() == weights.keys()
    for key, tensor in weights.items():
        shape = tuple(tensor.shape)
        assert model.weights.shape(key) == shape
        assert torch.equal(model.weights.read(key, shape, 0, tensor.numel()), tensor.flatten())
    assert about.family == card.process["name"]
    assert about.length == LENGTH
    assert {k: v for k, v in about.sizes.items() if k != "cond"}.items() >= {
        k: v for k, v in card.network.items() if k not in ("kind", "cond", "time_conditioning")
    }.items()
    assert {k: card.process[k] for k in about.process} == about.process
    assert ("tau" in about.process) == (name == "duo")
    mask = LLADA_MASK if is_llada(name) else WORDS if name in MASKED else None
    assert about.mask_id == mask


def test_weights_are_split_and_cast_as_asked(seen):
    assert len(list(seen.folders["sedd"].glob("model-*.safetensors"))) > 2
    assert (seen.folders["sedd"] / "model.safetensors.index.json").is_file()
    half, whole = (read_public(seen.folders[n]) for n in ("llada in bfloat16", "llada"))
    assert (half.about.dtype, whole.about.dtype) == ("bfloat16", "float32")
