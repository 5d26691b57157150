"""Style transfer as one writes it plainly: hooks, autograd on raw pixels, torch's L-BFGS.

    sum over l of w_l |G_l(x) - T_l|^2 / |T_l|^2 + c |F(x) - P|^2 / |P|^2 + v V(x)

the terms of `fc7.engine.style`, written down anew, for one image.
"""

import contextlib
import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from fc7.engine.models import Network


class PlainTransfer:
    """One content and one style, as a function of the picture.

    Args:
        network: not changed.
        content: (1, 3, H, W) in [0, 1].
        style: (1, 3, H', W') in [0, 1], at the size at which it is to be read.
        layers: weights of style layers.
        of_content: weights of content layers.
        variation: v.
        dtype: of all that is computed.

    Attributes:
        variation: v.
    """

    def __init__(
        self,
        network: Network,
        content: Tensor,
        style: Tensor,
        layers: Mapping[str, float],
        of_content: Mapping[str, float],
        variation: float,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._network, self._dtype = network, dtype
        self._model = copy.deepcopy(network.model).to(dtype)
        self._layers, self._of_content, self.variation = layers, of_content, variation
        with torch.no_grad():
            found = self._features(style.to(dtype))
            self._grams = {name: _gram(found[name]) for name in layers}
            found = self._features(content.to(dtype))
            self._content = {name: found[name] for name in of_content}

    def __call__(self, picture: Tensor) -> Tensor:
        """Return the loss of (1, 3, H, W), a scalar."""
        found = self._features(picture)
        total = picture.new_zeros(())
        for name, weight in self._layers.items():
            wanted = self._grams[name]
            apart = (_gram(found[name]) - wanted).square().sum()
            total = total + weight * apart / wanted.square().sum()
        for name, weight in self._of_content.items():
            wanted = self._content[name]
            total = total + weight * (found[name] - wanted).square().sum() / wanted.square().sum()
        down, across = picture.diff(dim=2).square().sum(), picture.diff(dim=3).square().sum()
        return total + self.variation * (down + across) / picture[0, 0].numel()

    def descend(self, start: Tensor, evaluations: int, search: str | None) -> Tensor:
        """Return the best picture of so many evaluations by `torch.optim.LBFGS`, clamped."""
        picture = start.to(self._dtype).clone().requires_grad_()
        optimiser = torch.optim.LBFGS(
            [picture],
            lr=1,
            max_iter=evaluations,
            max_eval=evaluations,
            tolerance_grad=0,
            tolerance_change=0,
            history_size=10,
            line_search_fn=search,
        )
        best, least, done = picture.detach().clone(), float("inf"), 0

        def closure() -> float:
            nonlocal best, least, done
            optimiser.zero_grad()
            loss = self(picture)
            loss.backward()  # type: ignore[no-untyped-call]
            done += 1
            value = float(loss.detach())
            if value < least and done <= evaluations:
                best, least = picture.detach().clone(), value
            return value

        while done < evaluations:  # it may stop, and be called again, before its evaluations end
            before = done
            optimiser.step(closure)  # type: ignore[no-untyped-call]
            if done == before:
                break
        return best.clamp(0, 1)

    def _features(self, picture: Tensor) -> dict[str, Tensor]:
        seen: dict[str, Tensor] = {}
        wanted = {**self._layers, **self._of_content}
        handles = []
        for name in wanted:
            module = self._model.get_submodule(self._network.layer(name).path)

            def hook(_module: object, _given: object, output: Tensor, name: str = name) -> None:
                seen[name] = output.clone()  # an in-place ReLU may follow
                if len(seen) == len(wanted):
                    raise _Enough

            handles.append(module.register_forward_hook(hook))
        mean, std = (
            torch.tensor(values, dtype=self._dtype)[:, None, None]
            for values in (self._network.mean, self._network.std)
        )
        with contextlib.suppress(_Enough):  # a classifier takes one size only
            self._model((picture - mean) / std)
        for handle in handles:
            handle.remove()
        return seen


class _Enough(Exception):  # noqa: N818 - nothing is wrong
    pass


def _gram(features: Tensor) -> Tensor:
    flat = features.flatten(2)
    return flat @ flat.mT / flat.shape[2]
