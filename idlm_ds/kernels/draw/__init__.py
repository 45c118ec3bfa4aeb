"""One categorical draw a row, from one uniform number a row."""

from idlm_ds.kernels.dispatch import dispatched
from idlm_ds.kernels.draw import reference

draw = dispatched(reference.draw)
