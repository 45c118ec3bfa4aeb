"""Samplers: functions of a process, a denoiser and a time grid."""
