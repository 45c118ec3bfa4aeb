"""Ranges, checked on sections built in code."""

import math
import subprocess
import sys

import pytest

from idlm_ds.recipes import checkpoint, evaluation, sections, student
from idlm_ds.recipes.errors import RecipeError

GOOD = {
    sections.ProcessSection: {"name": "mdlm"},
    sections.ModelSection: {"hidden": 64, "blocks": 1, "heads": 4},
    sections.TeacherSection: {},
    student.LatentSection: {},
    sections.DataSection: {"length": 8},
    sections.DistillTrain: {"student_steps": 1, "global_batch": 1, "micro_batch": 1},
    sections.PretrainTrain: {"steps": 1, "global_batch": 1, "micro_batch": 1},
    sections.OptimSection: {"lr": 1.0},
    sections.DistillObjective: {},
    sections.EmaSection: {},
    evaluation.EvalSection: {},
    sections.LogSection: {},
    checkpoint.CheckpointSection: {},
}
STEPS = ((4, 4), (8, 4), (0, 4), (-1,))
# Section, field, values inside the range and at its ends, values just outside.
RANGES = [
    (sections.ProcessSection, "sigma_min", (1e-9, 19.0), (0.0, math.inf)),
    (sections.ProcessSection, "sigma_max", (0.1,), (1e-4, math.inf, math.nan)),
    (sections.ProcessSection, "gamma_min", (-39.0, -2.0), (-40.0, math.nan)),
    (sections.ProcessSection, "gamma_max", (-3.0, 39.0), (-3.55, 40.0, math.nan)),
    (sections.ProcessSection, "tau", (1e-9,), (0.0, math.inf, math.nan)),
    (evaluation.EvalSection, "nucleus", (0.1, 1.0), (0.0, 1.1, math.nan)),
    (sections.DistillObjective, "rounds", (1,), (0,)),
    (sections.DistillObjective, "grid", (1,), (0,)),
    (sections.DistillObjective, "t_min", (None, 0.0, 0.999), (-0.1, 1.0, math.nan)),
    (sections.DistillObjective, "full_noise_fraction", (0.0, 0.999), (-0.1, 1.0, math.nan)),
    (student.LatentSection, "size", (0, 64), (-1,)),
    (student.LatentSection, "scale", (0.1, 2.0), (0.0, math.inf, math.nan)),
    (student.LatentSection, "rate", (0.1, 9.0), (0.0, math.inf, math.nan)),
    (sections.DistillObjective, "input_t_min", (None, 0.0, 0.999), (-0.1, 1.0, math.nan)),
    (sections.ProcessSection, "eps", (1e-9, 0.5), (0.0, 1.0, math.nan)),
    (sections.ProcessSection, "t_min", (0.0, 0.999), (-0.1, 1.0, math.nan)),
    (sections.ModelSection, "hidden", (8, 128), (0, 66, 68)),
    (sections.ModelSection, "blocks", (1,), (0,)),
    (sections.ModelSection, "heads", (1, 32), (0,)),
    (sections.ModelSection, "cond", (1,), (0,)),
    (sections.ModelSection, "mlp_ratio", (1,), (0,)),
    (sections.ModelSection, "dropout", (0.0, 0.99), (-0.1, 1.0, math.nan)),
    (checkpoint.CheckpointSection, "every_minutes", (0.0, 0.5, 90.0), (-1.0, math.inf, math.nan)),
    (
        checkpoint.CheckpointSection,
        "keep_every_hours",
        (0.0, 0.5, 24.0),
        (-1.0, math.inf, math.nan),
    ),
    (sections.TeacherSection, "path", ("x",), ("", " ")),
    (sections.DataSection, "corpus", ("x",), ("",)),
    (sections.DataSection, "tokenizer", ("x",), ("",)),
    (sections.DataSection, "length", (1,), (0,)),
    (sections.DataSection, "heldout_every", (2,), (1,)),
    (sections.DataSection, "prefetch", (1,), (0,)),
    (sections.DistillTrain, "student_steps", (1,), (0,)),
    (sections.DistillTrain, "global_batch", (1,), (0,)),
    (sections.DistillTrain, "micro_batch", (1,), (0,)),
    (sections.PretrainTrain, "steps", (1,), (0,)),
    (sections.PretrainTrain, "global_batch", (1,), (0,)),
    (sections.PretrainTrain, "micro_batch", (1,), (0,)),
    (sections.OptimSection, "lr", (1e-9,), (0.0, -1.0, math.inf, math.nan)),
    (sections.OptimSection, "fake_lr_scale", (0.1, 10.0), (0.0, math.inf, math.nan)),
    (sections.OptimSection, "eps", (1e-12,), (0.0, math.nan)),
    (sections.OptimSection, "betas", ((0.0, 0.0),), ((1.0, 0.9), (0.9, 1.0), (-0.1, 0.9))),
    (sections.OptimSection, "weight_decay", (0.0,), (-0.1, math.inf, math.nan)),
    (sections.OptimSection, "clip", (0.0,), (-0.1, math.nan)),
    (sections.OptimSection, "warmup_steps", (0,), (-1,)),
    (sections.OptimSection, "decay_fraction", (0.0, 1.0), (-0.1, 1.1, math.nan)),
    (sections.DistillObjective, "fake_steps", (1,), (0,)),
    (sections.DistillObjective, "noisings", (1, 8), (0,)),
    (sections.EmaSection, "decay", (0.0, 0.99999), (-0.1, 1.0, math.nan)),
    (evaluation.EvalSection, "num_samples", (2,), (1,)),
    (evaluation.EvalSection, "steps", ((1,), (1, 2)), (*STEPS, ())),
    (evaluation.EvalSection, "teacher_steps", ((1, 2, 3),), STEPS),
    (evaluation.EvalSection, "matched_steps", ((1, 1024),), STEPS),
    (evaluation.EvalSection, "judge", ("x",), ("",)),
    (evaluation.EvalSection, "batch", (1,), (0,)),
    (evaluation.EvalSection, "seed", (0,), (-1,)),
    (evaluation.EvalSection, "block", (None,), (0, -1, 4)),
    (evaluation.EvalSection, "remasking", ("low_confidence",), ("random",)),
    (sections.LogSection, "every", (1,), (0,)),
    (sections.LogSection, "sample_every", (0,), (-1,)),
    (sections.LogSection, "project", ("x",), ("",)),
    (checkpoint.CheckpointSection, "every", (0,), (-1,)),
    (checkpoint.CheckpointSection, "keep", (1,), (0,)),
]
IDS = [f"{section.prefix}.{field}" for section, field, _, _ in RANGES]


@pytest.mark.parametrize(("section", "field", "good", "bad"), RANGES, ids=IDS)
def test_a_range_holds_its_ends_and_refuses_what_lies_beyond(section, field, good, bad):
    for value in good:
        assert getattr(section(**{**GOOD[section], field: value}), field) == value
    for value in bad:
        with pytest.raises(RecipeError) as caught:
            section(**{**GOOD[section], field: value})
        line = str(caught.value)
        assert line.startswith(f"{section.prefix}.{field}: must be ")
        assert line.endswith(f", got {value!r}")


def test_a_width_that_heads_cannot_share_evenly_is_refused_and_says_why():
    with pytest.raises(RecipeError) as caught:
        sections.ModelSection(hidden=100, blocks=1, heads=20)
    rule = "model.hidden: must be model.heads 20 times an even width, got 100"
    assert str(caught.value) == rule


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("block", (None, 1, 32), (0,)),
        ("remasking", ("low_confidence", "random"), ()),
        ("precision", ("float64",), ("float32",)),
        ("tail", ("ancestral",), ("greedy", "none")),
        ("nucleus", (1.0,), (0.9,)),
        ("matched_steps", ((8,),), ()),
    ],
)
def test_blockwise_takes_what_means_something_to_it(field, good, bad):
    for value in good:
        made = evaluation.EvalSection(sampler="blockwise", **{field: value})
        assert getattr(made, field) == value
        assert made.is_blockwise
    for value in bad:
        with pytest.raises(RecipeError) as caught:
            evaluation.EvalSection(sampler="blockwise", **{field: value})
        line = str(caught.value)
        assert line.startswith(f"eval.{field}: must be ")
        assert line.endswith(f", got {value!r}")


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"block": 12}, "eval.block: must be a divisor of data.length, 64, got 12"),
        ({"block": 128}, "eval.block: must be a divisor of data.length, 64, got 128"),
        (
            {"block": 16, "steps": (4, 6)},
            "eval.steps: must be multiples of 4, the blocks of 16 tokens in data.length 64, got "
            "(4, 6)",
        ),
        (
            {"block": 32, "steps": (2,), "teacher_steps": (3,)},
            "eval.teacher_steps: must be multiples of 2, the blocks of 32 tokens in data.length "
            "64, got (3,)",
        ),
        (
            {"block": 32, "steps": (2,), "matched_steps": (2, 5)},
            "eval.matched_steps: must be multiples of 2, the blocks of 32 tokens in data.length "
            "64, got (2, 5)",
        ),
    ],
)
def test_blocks_and_steps_that_do_not_divide_are_refused(settings, line):
    section = evaluation.EvalSection(sampler="blockwise", **settings)
    with pytest.raises(RecipeError) as caught:
        section.check_length(64)
    assert str(caught.value) == line


def test_any_steps_fit_into_one_block_and_into_chains():
    evaluation.EvalSection(sampler="blockwise", steps=(1, 3, 7)).check_length(64)
    evaluation.EvalSection(steps=(1, 3, 7)).check_length(63)


def test_reading_recipes_imports_neither_torch_nor_more_of_the_package_than_its_names():
    code = "import sys, idlm_ds.recipes.load, idlm_ds.recipes.batch; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = run.stdout.split()
    assert "torch" not in loaded
    ours = {module.split(".")[1] for module in loaded if module.startswith("idlm_ds.")}
    assert ours == {"recipes", "registry", "errors"}
