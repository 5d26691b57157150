"""Taps: what chosen layers of a network return, from one pass stopped at the deepest of them."""

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from torch import Tensor, nn

from fc7.engine.errors import LayerError
from fc7.engine.models.dryrun import Stop
from fc7.engine.models.layers import Layer

Reduce = Callable[[Layer, Tensor], Any]


def tap(
    model: nn.Module,
    forward: Callable[[], Any],
    layers: Sequence[Layer],
    reduce: Reduce | None = None,
) -> dict[str, Any]:
    """Return what each layer returned, reduced, by the layer's name.

    The pass ends in the hook of the last layer to be seen: no module after it runs. A module that
    runs several times in a pass counts with its last call (`Layer.calls`). Gradients flow as in
    any pass, and all hooks are gone when this returns or raises. Threads may tap one network at
    the same time: each sees only its own pass.

    Args:
        model: the network whose modules are tapped.
        forward: runs it; its result is not used.
        layers: of that model, at least one.
        reduce: given the layer and its output, (N, *layer.shape), while the output is as the
            module left it; an in-place operation may change the tensor afterwards, so what is
            returned must not share its memory. Without it the outputs themselves come back.

    Raises:
        LayerError: no layer was asked for, or one was not reached.
    """
    if not layers:
        raise LayerError("no layer was asked for; name at least one")
    thread = threading.get_ident()
    seen: dict[str, Any] = {}
    wanted: dict[str, list[Layer]] = {}
    for layer in layers:
        wanted.setdefault(layer.path, []).append(layer)
    missing = dict.fromkeys(wanted)

    def hook_of(path: str) -> Callable[..., None]:
        left = wanted[path][0].calls

        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            nonlocal left
            if threading.get_ident() != thread:
                return
            left -= 1
            if left:
                return
            missing.pop(path, None)
            for layer in wanted[path]:
                if reduce is not None:
                    seen[layer.name] = reduce(layer, output)
                else:
                    # Nothing runs after the last one, so only the others need a copy.
                    seen[layer.name] = output.clone() if missing else output
            if not missing:
                raise Stop

        return hook

    with ExitStack() as stack:
        for path in wanted:
            module = model.get_submodule(path)
            stack.callback(module.register_forward_hook(hook_of(path)).remove)
        with suppress(Stop):
            forward()
    if missing:
        raise LayerError(
            f"the pass did not reach {', '.join(missing)}; on images of this size the network "
            f"takes another way than when its layers were listed"
        )
    return {layer.name: seen[layer.name] for layer in layers}
