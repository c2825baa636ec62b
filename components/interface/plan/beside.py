"""What a phase takes beside tensors; every number was measured, see infra/decisions/0013-plan.md."""

from __future__ import annotations

from components.config import Params
from components.interface.plan.device import Device
from components.interface.plan.roles import Phase

_MIB = 2**20
# On a CPU: libraries, kernels that were made, rows. Measured on the shipped world.
_BESIDE = {"sft": 880 * _MIB, "reward_model": 825 * _MIB, "judge": 775 * _MIB, "alignment": 900 * _MIB,
           "evaluation": 600 * _MIB}  # fmt: skip
# Of what adapters' passes hold at once so much more is kept in holes of the C library's heap: an adapter's many small
# and short-lived tensors lie between the large ones. Between what two runs had, which differ by up to three times.
_HOLES = {"sft": 1.0, "reward_model": 1.0, "judge": 1.0, "alignment": 0.67, "evaluation": 0.5}
_CONTEXT = 512 * _MIB  # of CUDA, on a GPU; not measured
_LOADS_AFTER_TRAINING = ("reward_model", "judge")  # the SFT policy
_FROZEN = ("reference", "reward model")
_ASK_NO_FROZEN = ("rollouts", "updates")


def beside(phase: Phase, device: Device) -> int:
    """Bytes beside the phase's tensors, in one process."""
    if device.is_gpu:
        return _CONTEXT
    # A model's file is mapped into memory while it is loaded; what training has freed is not given back before.
    loaded = phase.whole_model if phase.stage in _LOADS_AFTER_TRAINING and phase.trains else 0
    holes = round(_HOLES[phase.stage] * phase.work) if phase.adapters else 0
    return _BESIDE[phase.stage] + loaded + holes


def offloaded(phase: Phase, params: Params, device: Device) -> Phase:
    """The phase without models that lie in main memory meanwhile."""
    away = device.is_gpu and params.language_model.offload_frozen and phase.trained and phase.name in _ASK_NO_FROZEN
    if not away:
        return phase
    return phase._replace(roles={role: 0 if role in _FROZEN else size for role, size in phase.roles.items()})
