"""Shared parts of distillation and pretraining runs: resuming, output folder, hooks."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, Self

import torch

from idlm_ds.checkpoints.retention import Retention, written_since
from idlm_ds.data.loader import Loader
from idlm_ds.data.rows import Rows
from idlm_ds.engine.checkpoint import (
    find_checkpoint,
    load_checkpoint,
    problem_with,
    read_state,
)
from idlm_ds.engine.dist import World
from idlm_ds.engine.saving import CheckpointWriter
from idlm_ds.errors import Preempted, UserError
from idlm_ds.kernels import dispatch
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.recipes.schema import DistillRecipe, PretrainRecipe
from idlm_ds.recipes.sections import LogSection
from idlm_ds.recipes.typed import default_of
from idlm_ds.runs.output import job_began, prepare_output
from idlm_ds.runs.requeue import write_note
from idlm_ds.runs.shared_folder import require_shared
from idlm_ds.startup import batch_restarts
from idlm_ds.train import signals
from idlm_ds.train.flops import Meter, peak_flops
from idlm_ds.train.hooks.checkpointing import Checkpointer, Watch
from idlm_ds.train.hooks.console import Progress, say
from idlm_ds.train.hooks.metrics import MetricsFile, TensorBoard, WandB
from idlm_ds.train.hooks.preemption import Preemption, signals_on_any_rank
from idlm_ds.train.loop import Hook, run_phases
from idlm_ds.train.step import Program

Recipe = DistillRecipe | PretrainRecipe


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """Options of the command line that no recipe has."""

    output: Path
    resume: str | None = None
    """None, ``auto`` or a checkpoint folder."""

    fresh: bool = False
    config: Path | None = None
    """The DeepSpeed file, to be named in messages."""

    def after_restart(self) -> Self:
        """Continue what this batch job began, where its scheduler has started it again.

        The command line is still that of the first start: ``--fresh`` would delete what the job
        has done, and a named checkpoint would undo it.
        """
        began = job_began(self.output)
        if not batch_restarts() or began is None:
            return self
        has_saved = written_since(self.output / "checkpoints", began)
        resume = "auto" if has_saved or self.resume is None else self.resume
        return replace(self, resume=resume, fresh=False)


@dataclass(frozen=True, slots=True)
class Session:
    """One process's part in one run."""

    recipe: Recipe
    options: RunOptions
    world: World

    @property
    def checkpoints(self) -> Path:
        """Folder of the run's checkpoints."""
        return self.options.output / "checkpoints"

    def choose_kernels(self) -> None:
        """Choose the form of fused operators for the whole program, and say which it is.

        Raises:
            UserError: The recipe asks for one that cannot run here.
        """
        line = dispatch.choose(self.recipe.train.kernels, self.world.device)
        if self.world.is_first:
            say(line)

    def open_output(self) -> None:
        """Prepare the output folder, or stop every rank with the same error.

        Collective: every rank must call.
        """
        require_shared(self.options.output, self.world)
        problem = None
        if self.world.is_first:
            try:
                prepare_output(
                    self.options.output,
                    self.recipe,
                    world=self.world.size,
                    resume=self.options.resume is not None,
                    fresh=self.options.fresh,
                )
            except UserError as error:
                problem = str(error)
        if problem := self.world.agree(problem):
            raise UserError(problem)

    def state(self, windows: Rows, **inputs: str) -> dict[str, Any]:
        """Describe the run for its checkpoints: recipe and fingerprints of its inputs.

        Args:
            windows: The training data.
            inputs: Fingerprints of other files that must not change within a run.
        """
        inputs = {"data": windows.fingerprint, **inputs}
        identity = _identity(asdict(self.recipe))
        if isinstance(self.recipe, DistillRecipe) and self.recipe.objective.is_in_rounds:
            # Rounds are shares of the whole run.
            identity["train.student_steps"] = self.recipe.train.student_steps
        return {"recipe": identity, "inputs": inputs}

    def find_start(self, state: Mapping[str, Any]) -> Path | None:
        """Find the checkpoint to continue from; None for a new run.

        Collective: every rank must call.

        Raises:
            UserError: A named checkpoint is damaged, none of several is whole, or its recipe, data
                or teacher differ from this run's.
        """
        folder = self._find_checkpoint()
        if folder is not None:
            self._check_same_run(read_state(folder), state, folder)
        return folder

    def _find_checkpoint(self) -> Path | None:
        match self.options.resume:
            case None:
                return None
            case "auto":
                newest, problems = find_checkpoint(self.checkpoints, world=self.world)
                for problem in problems if self.world.is_first else []:
                    say(f"resume: skipped {problem}")
                if newest is None and problems:
                    raise UserError(f"--resume auto: no valid checkpoint in {self.checkpoints}")
                if newest is None and self.world.is_first:
                    say(f"resume: no checkpoint in {self.checkpoints} yet, starting at phase 0")
                return newest
            case named:
                if damage := problem_with(Path(named), world=self.world):
                    raise UserError(f"--resume: {damage}")
                return Path(named)

    def _check_same_run(
        self, saved: Mapping[str, Any], state: Mapping[str, Any], folder: Path
    ) -> None:
        for key, fingerprint in state["inputs"].items():
            if saved.get("inputs", {}).get(key) != fingerprint:
                raise UserError(f"--resume: {folder} was made with another {key} than this run's")
        for key, value in state["recipe"].items():
            was = saved.get("recipe", {}).get(key, self.before(key))
            if was != value:
                raise UserError(f"--resume: {folder} was made with {key}={was!r}, now {value!r}")

    def before(self, key: str) -> object:
        """Return what a key meant when recipes did not have it: its default."""
        try:
            return _as_json(default_of(type(self.recipe), key))
        except KeyError:
            return None

    def restore(self, folder: Path | None, program: Program) -> int:
        """Load a checkpoint into fresh engines.

        Collective: every rank must call.

        Returns:
            The phase to go on with.
        """
        if folder is None:
            return 0
        state = load_checkpoint(folder, program.learners)
        step = int(state["step"])
        if self.world.is_first:
            say(f"resume: {folder}, phase {step}")
            for name, role in program.learners.items():
                if role.has_mean and name not in state.get("means", program.learners):
                    say(f"resume: no running mean of the {name} there; it starts at its weights")
        return step


def _identity(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten a recipe to the dotted keys that must not change within a run."""
    sections = ("process", "model", "data", "optim", "objective", "ema")
    flat = {"seed": recipe["seed"], "train.global_batch": recipe["train"]["global_batch"]}
    parts = {section: recipe.get(section, {}) for section in sections}
    parts["student.latent"] = recipe.get("student", {}).get("latent", {})
    for section, part in parts.items():
        for key, value in part.items():
            flat[f"{section}.{key}"] = _as_json(value)
    for key in ("data.prefetch", "ema.fake"):
        flat.pop(key)
    return flat


def _as_json(value: object) -> object:
    """Return a value of a recipe as a JSON file gives it back."""
    return list(value) if isinstance(value, tuple) else value


def logging_hooks(
    session: Session, program: Program, *, start: int, stop: int
) -> tuple[list[Hook], MetricsFile | None]:
    """Build the sinks of metrics; none on ranks other than the first."""
    if not session.world.is_first:
        return [], None
    metrics = MetricsFile(session.options.output / "metrics.jsonl", start=start)
    log = session.recipe.log
    names = {phase.value: name for phase, name in program.method.loss_names.items()}
    progress = Progress(names, start=start, stop=stop, every=log.every)
    return [metrics, progress, *_sinks(session, log)], metrics


def run_to_end(
    session: Session,
    program: Program,
    loader: Loader,
    hooks: Sequence[Hook],
    saver: Checkpointer,
    *,
    start: int,
    stop: int,
) -> bool:
    """Run all phases; where a hook ends the run early, save what there is and say why.

    From here on a signal ends the run after the phase in which it came.

    Collective: every rank must call.

    Args:
        session: The run.
        program: What is trained.
        loader: The data.
        hooks: What happens beside training.
        saver: Comes after all other hooks, so that a checkpoint follows all of its phase.
        start: Phases done before.
        stop: Phases in all.

    Returns:
        Whether all phases are done.

    Raises:
        Preempted: A signal ended the run.
        UserError: A checkpoint could not be written.
    """
    log_every = session.recipe.log.every
    preemption = Preemption(session.world)
    signals.training_begins()
    ending = run_phases(
        program,
        loader,
        [*hooks, saver, preemption],
        start=start,
        stop=stop,
        log_every=log_every,
        meter=_meter(session, program),
    )
    if ending is not None:
        saver.save()
    saver.finish()
    if ending is None:
        return True
    if ending.is_preemption:
        _make_room(session, ending.reason, start=start, phase=preemption.done)
    if session.world.is_first:
        say(f"stopped: {ending.reason}; continue with --resume auto")
    return False


def leave_if_asked(session: Session, *, start: int, phase: int, rows: int = 0) -> None:
    """End a run that is past its training, where a signal has come.

    Collective: every rank must call.

    Args:
        session: The run.
        start: Phases that were done when it was last started.
        phase: Phases done, all of them saved.
        rows: Rows of its report that were measured and stored since it was last started.

    Raises:
        Preempted: A signal has come, on any rank.
    """
    if names := signals_on_any_rank(session.world):
        _make_room(session, f"{names} received", start=start, phase=phase, rows=rows)


def _make_room(session: Session, reason: str, *, start: int, phase: int, rows: int = 0) -> NoReturn:
    """Leave with a note to whoever may start the run again; all ranks at once.

    A rank that left earlier could have the others killed before the note is written.
    """
    if session.world.is_first:
        say(f"stopped: {reason}; continue with --resume auto")
        write_note(session.options.output, start=start, phase=phase, rows=rows)
    session.world.barrier()
    raise Preempted


def _meter(session: Session, program: Program) -> Meter | None:
    """Count what phases cost; masked families project half of the positions on average."""
    recipe, world = session.recipe, session.world
    learner = next(iter(program.learners.values()))
    is_masked = isinstance(getattr(program.method, "process", None), Absorbing)
    dtype = torch.bfloat16 if recipe.train.precision == "bf16" else torch.float32
    return Meter.of(
        getattr(learner.module, "config", None),
        program.rates,
        length=recipe.data.length,
        rows=0.5 if is_masked else 1.0,
        peak=peak_flops(world.device, dtype) * world.size,
    )


def checkpointer(
    session: Session, program: Program, state: Mapping[str, Any], *, stop: int
) -> Checkpointer:
    """Build the hook that saves.

    Collective: every rank must call.
    """
    section, world = session.recipe.checkpoint, session.world
    writer = CheckpointWriter(
        session.checkpoints,
        Retention(section.keep, section.keep_every_hours),
        world=world,
        is_asynchronous=section.asynchronous,
        before=session.before,
    )
    watch = Watch(writer, minutes=section.every_minutes, world=world)
    return Checkpointer(writer, program, state, every=section.every, stop=stop, watch=watch)


def _sinks(session: Session, log: LogSection) -> list[Hook]:
    output = session.options.output
    sinks: list[Hook] = []
    if log.tensorboard:
        sinks.append(TensorBoard(output / "tensorboard"))
    if log.wandb != "off":
        recipe = asdict(session.recipe)
        sinks.append(WandB(output, project=log.project, mode=log.wandb, recipe=recipe))
    return sinks
