# Copyright 2026 The rejuv-plugin authors
# SPDX-License-Identifier: Apache-2.0
"""verl's worker classes with a mixin in front, sent to the nodes by value."""

from collections.abc import Mapping
from typing import Any

import ray


def extended(role_worker_mapping: Mapping[Any, Any], mixins: Mapping[type, type], **attributes: Any) -> dict[Any, Any]:
    """The mapping with worker classes extended.

    Args:
        role_worker_mapping: verl's ``role -> Ray actor class``; not changed.
        mixins: for workers of the class on the left the mixin on the right; the first that fits. Others stay.
        attributes: of the extended classes.
    """
    return {role: _extended(actor, mixins, attributes) for role, actor in role_worker_mapping.items()}


def _extended(actor_class: Any, mixins: Mapping[type, type], attributes: Mapping[str, Any]) -> Any:
    worker = actor_class.__ray_actor_class__  # the user's class under Ray's wrapper, as verl unwraps it too
    mixin = next((mixin for of, mixin in mixins.items() if issubclass(worker, of)), None)
    if mixin is None:
        return actor_class
    # The module is not where the class could be found again, so it travels by value.
    return ray.remote(type(worker.__name__, (mixin, worker), {"__module__": __name__, **attributes}))
