"""One good recipe of each kind, every key written out, to be spoilt by tests."""

DISTILL = """\
name: toy
seed: 7
process: {name: mdlm, schedule: loglinear, eps: 1e-3, t_min: 0.01}
teacher: {path: some/folder}
student: {latent: {size: 4, scale: 0.25, rate: 2.0}}
data: {corpus: text, tokenizer: pieces, length: 64, heldout_every: 10, prefetch: 2}
train: {student_steps: 100, global_batch: 32, micro_batch: 8, precision: bf16}
optim:
  lr: 3e-4
  fake_lr_scale: 2
  betas: [0.9, 0.95]
  eps: 1e-9
  weight_decay: 0.1
  clip: 1.0
  warmup_steps: 5
  decay_fraction: 0.25
objective: {name: idlm, fake_steps: 3, full_noise_fraction: 0.25, noisings: 2, reduction: sum}
ema: {decay: 0.99}
eval:
  when: never
  num_samples: 16
  steps: [2, 4]
  teacher_steps: [4, 64]
  matched_steps: [8, 32]
  judge: somewhere
  precision: float64
  batch: 4
  sampler: ancestral
  seed: 5
log: {every: 2, sample_every: 0, tensorboard: true, wandb: off, project: mine}
checkpoint: {every: 0, keep: 1}
"""

PRETRAIN = """\
name: toy_teacher
seed: 3
process: {name: mdlm, schedule: loglinear, eps: 0.001, t_min: 0.0}
model:
  kind: gpt2
  hidden: 48
  blocks: 2
  heads: 3
  cond: 16
  mlp_ratio: 2
  dropout: 0.1
  time_conditioning: true
data: {corpus: text, tokenizer: pieces, length: 64, heldout_every: 10, prefetch: 2}
train: {steps: 100, global_batch: 32, micro_batch: 8, precision: fp32}
optim: {lr: 1.0e-3}
objective: {name: nelbo, reduction: mean}
ema: {decay: 0}
log: {every: 2, sample_every: 0, tensorboard: false, wandb: offline, project: mine}
checkpoint: {every: 10, keep: 3}
"""
