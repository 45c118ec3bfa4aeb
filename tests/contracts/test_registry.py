"""Every name that users type is a row, every row works, and no name is spelled anywhere else."""

import math
import re
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import idlm_ds
from idlm_ds.checkpoints.conversion import ConversionOptions, check_fits, complete
from idlm_ds.checkpoints.formats.base import Format, format_of, write_model
from idlm_ds.checkpoints.formats.content import Content
from idlm_ds.checkpoints.formats.plans import Plan, parameter_shapes
from idlm_ds.checkpoints.formats.public import detect, read_public
from idlm_ds.checkpoints.model_folder import NetworkCard, write_network
from idlm_ds.export.fields import Code
from idlm_ds.models.init import InitialWeights
from idlm_ds.objectives.alternation import Alternation
from idlm_ds.objectives.base import Method
from idlm_ds.objectives.self_distillation import Rounds
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Process
from idlm_ds.processes.by_name import make_process, make_schedule
from idlm_ds.recipes.sections import ProcessSection
from idlm_ds.registry.families import CLOCKS, FAMILIES, SCHEDULES, sampled_as
from idlm_ds.registry.layouts import LAYOUTS
from idlm_ds.registry.methods import METHODS, OBJECTIVES
from idlm_ds.registry.networks import NETWORKS, NetworkRow
from idlm_ds.registry.samplers import PRECISIONS, SAMPLERS, TAILS
from idlm_ds.registry.table import default, load
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.schedules.base import NoiseSchedule
from idlm_ds.schedules.gaussian import DuoClock
from tests.contracts.spelling import spelled

ROOT = Path(idlm_ds.__file__).parents[1]
V = 11
TABLES = (
    FAMILIES,
    SCHEDULES,
    CLOCKS,
    SAMPLERS,
    METHODS,
    OBJECTIVES,
    NETWORKS,
    LAYOUTS,
    TAILS,
    PRECISIONS,
)
NAMES = {name for table in TABLES for name in table} - {
    # An everyday word, and one of PyTorch and Matplotlib.
    "none",
    # The package's own name.
    "idlm_ds",
}
EXCEPTIONS = {
    ("idlm_ds/checkpoints/formats/llada.py", "llada"): "model_type of the published release",
    ("idlm_ds/export/fields.py", "llada"): "model_type of the published release",
    ("idlm_ds/export/remote/configuration_llada.py", "llada"): "model_type of the release",
    ("idlm_ds/export/fields.py", "idlm"): "model_type of exported folders",
    ("idlm_ds/export/remote/configuration_idlm.py", "idlm"): "model_type of exported folders",
    ("idlm_ds/checkpoints/pickle_reader/allowed.py", "lightning"): "a package whose classes occur",
    ("idlm_ds/checkpoints/pickle_reader/allowed.py", "float32"): "a dtype of stored tensors",
    ("idlm_ds/checkpoints/pickle_reader/allowed.py", "float64"): "a dtype of stored tensors",
    ("idlm_ds/export/write.py", "float32"): "a dtype of exported weights",
    ("tools/convert_checkpoint.py", "float32"): "a dtype to cast to",
    ("tools/export_student.py", "float32"): "a dtype of exported weights",
    ("tools/prepare_data.py", "gpt2"): "the short name of a tokenizer",
    ("tools/prepare_data.py", "llada"): "the short name of a tokenizer",
    ("idlm_ds/evaluation/gguf_folder.py", "gpt2"): "a kind of tokenizer in GGUF files",
}
SOURCES = {
    str(path.relative_to(ROOT)): path
    for folder in ("idlm_ds", "tools", "launchers")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.parent.name != "registry"
}
SMALL = {
    "vocab_size": V,
    "hidden": 16,
    "blocks": 1,
    "heads": 2,
    "ffn": 24,
    "cond": 8,
    "mlp_ratio": 2,
    "n_positions": 8,
    "n_embd": 16,
    "n_layer": 1,
    "n_head": 2,
}


def settings(**chosen: Any) -> dict[str, Any]:
    return asdict(ProcessSection(**{"name": default(FAMILIES), **chosen}))


def small(row: NetworkRow) -> nn.Module:
    config = load(row.config)
    if is_dataclass(config):
        known = {f.name for f in fields(config)}
        return load(row.entry_point)(config(**{k: v for k, v in SMALL.items() if k in known}))
    return load(row.entry_point)(
        config(**{k: v for k, v in SMALL.items() if k in config().to_dict()})
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_built_from_its_settings(name):
    row = FAMILIES[name]
    process = make_process(settings(name=name), V, V - 1)
    assert type(process) is load(row.entry_point)
    assert isinstance(process, Process)
    assert isinstance(process, Absorbing) == row.is_masked
    assert process.vocab_size == V
    assert set(row.settings) <= {f.name for f in fields(ProcessSection)}
    chain = make_process(settings(name=sampled_as(name)), V, V - 1)
    assert type(process).step is type(chain).step
    if row.is_masked:
        with pytest.raises(ValueError, match=f"mask_token_id: {name} needs one"):
            make_process(settings(name=name), V, None)


def test_a_published_name_means_one_family():
    published = [n for row in FAMILIES.values() for n in (row.name, *row.published_as)]
    assert len(published) == len(set(published))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_built_from_its_settings(name):
    schedule = make_schedule(settings(schedule=name))
    assert type(schedule) is load(SCHEDULES[name].entry_point)
    assert isinstance(schedule, NoiseSchedule)
    alpha = schedule.at(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)).alpha
    assert alpha[0] > 0.99
    assert bool((alpha.diff() < 0).all())


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_clock_is_built_from_its_settings(clock):
    process = make_process(settings(name="duo", clock=clock), V, None)
    assert isinstance(process.clock, DuoClock)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_is_a_step_of_every_family_it_is_defined_for(name, family):
    row, process = SAMPLERS[name], make_process(settings(name=family), V, V - 1)
    assert callable(load(row.entry_point))
    if not row.is_chain:
        return
    chain = SamplerConfig(steps=2, sampler=name)
    if row.needs_mask and not FAMILIES[family].is_masked:
        with pytest.raises(ValueError, match=f"^sampler: {name} needs a masked family"):
            chain.reverse_step(process)
    else:
        assert callable(chain.reverse_step(process))


ARGUMENTS = {
    "plan": Alternation(2),
    "input_t_min": 0.1,
    "full_noise_fraction": 0.2,
    "noisings": 2,
    "latent": 3,
    "rounds": Rounds(updates=4, count=1, grid=2),
}


@pytest.mark.parametrize("name", [*METHODS, *OBJECTIVES])
def test_a_method_is_built_from_its_row(name):
    row = {**METHODS, **OBJECTIVES}[name]
    assert row.families
    for family in row.families:
        process = [make_process(settings(name=family), V, V - 1)] * (name != "ar")
        arguments = {argument: ARGUMENTS[argument] for argument in row.takes}
        method = load(row.entry_point)(*process, t_min=0.2, **arguments)
        assert isinstance(method, Method)
        assert 0.2 in method.smallest_times.values()
        assert {method.plan.phase(step) for step in range(9)} == method.loss_names.keys()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_built_filled_and_written_as_its_row_says(name):
    row = NETWORKS[name]
    network = small(row)
    assert isinstance(network, nn.Module)
    source = InitialWeights(load(row.initial_value), seed=0)
    for parameter, value in network.named_parameters():
        drawn = source.read(parameter, tuple(value.shape), 0, value.numel())
        assert drawn.numel() == value.numel()
    assert row.objective in ("", *OBJECTIVES)
    assert row.is_diffusion == bool(row.plan)
    if row.plan:
        assert isinstance(load(row.plan), Plan)
        known = {f.name for f in fields(load(row.config))}
        assert row.has_time_conditioning == ("time_conditioning" in known)
        assert "checkpoint_activations" in known
        shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
        assert list(parameter_shapes(row.name, SMALL).items()) == list(shapes.items())
    if row.code:
        assert isinstance(load(row.code), Code)
        assert name in LAYOUTS[row.exported_as].networks


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_objective_trains_some_network(objective):
    assert [row for row in NETWORKS.values() if row.objective == objective]


def held_by(name: str) -> list[tuple[str, str]]:
    """Networks and families that a layout can hold."""
    row = LAYOUTS[name]
    networks = row.networks or [n for n, network in NETWORKS.items() if network.plan]
    return [(network, family) for network in networks for family in row.families or FAMILIES]


HELD = [(layout, *pair) for layout in LAYOUTS for pair in held_by(layout)]


@pytest.mark.parametrize(("layout", "network", "family"), HELD)
def test_a_layout_reads_what_it_writes(layout, network, family, tmp_path):
    row, module = LAYOUTS[layout], small(NETWORKS[network])
    assert isinstance(format_of(layout), Format)
    assert set(row.needs) <= {"family", "length"}
    names = {f.name for f in fields(load(NETWORKS[network].config))}
    sizes = {key: value for key, value in SMALL.items() if key in names}
    if NETWORKS[network].has_time_conditioning:
        sizes["time_conditioning"] = True
    card = NetworkCard(network={"kind": network, **sizes}, process=settings(name=family), length=8)
    weights = {name: torch.randn(p.shape) for name, p in module.named_parameters()}
    write_network(tmp_path / "own", card, weights)
    source = read_public(tmp_path / "own")
    about = complete(source.about, ConversionOptions(layout=layout))
    check_fits(about, row)
    target = tmp_path / ("there.ckpt" if row.is_file else "there")
    write_model(target, layout, Content(about=about, weights=source.weights))
    assert detect(target) == layout
    model = read_public(target)
    assert (model.about.layout, model.about.kind, model.about.family) == (layout, network, family)
    for name, value in weights.items():
        stored = model.weights.read(name, tuple(value.shape), 0, value.numel())
        assert torch.equal(stored, value.flatten())
    assert model.about.parameters == sum(math.prod(value.shape) for value in weights.values())


def test_the_readme_describes_every_layout():
    readme = (ROOT / "idlm_ds" / "checkpoints" / "README.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", readme, flags=re.M) == list(LAYOUTS)


def test_names_are_spelled_in_the_registry_only():
    again = [
        f"{file}:{line}: {name!r}"
        for file, path in SOURCES.items()
        for line, name in spelled(path.read_text(), NAMES)
        if (file, name) not in EXCEPTIONS
    ]
    assert again == []


def test_every_exception_is_still_needed():
    for file, name in EXCEPTIONS:
        assert name in {word for _, word in spelled((ROOT / file).read_text(), NAMES)}, (file, name)


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ('def f(x):\n    if x == "mdlm":\n        return 1\n', [(2, "mdlm")]),
        ('match x:\n    case "dit":\n        pass\n', [(2, "dit")]),
        (
            'X = {"sedd_training": 1}\nname: Literal["duo"] = "duo"\n',
            [(1, "sedd_training"), (2, "duo"), (2, "duo")],
        ),
        ('"""mdlm"""\nclass A:\n    "mdlm"\n    x: int\n    """mdlm"""\n', []),
        ('X = "see mdlm", "MDLM", "none", mdlm\n', []),
    ],
)
def test_a_planted_name_is_found(source, wanted):
    assert spelled(source, NAMES) == wanted


def test_a_name_planted_in_the_package_is_found():
    source = (ROOT / "idlm_ds" / "train" / "loop.py").read_text()
    planted = source + '\n\ndef f(name):\n    return name == "mdlm"\n'
    found = [name for _, name in spelled(planted, NAMES)]
    assert found == [*(name for _, name in spelled(source, NAMES)), "mdlm"]
