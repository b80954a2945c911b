"""Several plausible hands for one observation: draws of the network's latent, each solved for.

A noisy hand beside a can could be meant a little higher or lower, or turned about its axis. The single result is solved
for the mean over all these; a sample for one of them. Each is scored against the mean prediction. Differences of scores
are log odds, so that their softmax is how probable each is to be the nearest to the truth of all (Luce's choice rule).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from contact.field import ContactField
from contact.objects.object_set import ObjectSet
from hand_models import HandPose
from hand_models.record import Index, Record, as_index
from hand_models.solver.states import Term

from ..config import RefineConfig
from .fields import EncodedGrasps
from .optimize import optimise
from .score import ScoreWeights, plausibility, score


@dataclass(frozen=True)
class Samples(Record):
    """``K`` plausible hands for each of ``B`` observations, the most probable first.

    They suppose that the hand holds the object. ``samples[row]`` are those of one observation, ``len`` is ``B``.
    """

    probability: Tensor
    """(B, K) of being the nearest to the truth among the ``K``; a row sums to one"""
    joints: Tensor
    """(B, K, 21, 3) metres, object frame, OpenPose order"""
    pose: HandPose
    """``B · K`` hands, hand by hand: the ``K`` of the first observation, then those of the second"""

    def map(self, function: Callable[[Tensor], Tensor]) -> Samples:
        """With ``function`` of every tensor, those of ``pose`` too as ``(B, K, …)``."""
        shape = self.probability.shape
        pose = self.pose.map(lambda values: function(values.unflatten(0, shape)).flatten(0, 1))
        return Samples(function(self.probability), function(self.joints), pose)

    def __getitem__(self, index: Index) -> Samples:
        """Those of some of the observations; an integer keeps a batch of one."""
        rows = as_index(index)
        return self.map(lambda values: values[rows])

    def mirrored(self) -> Samples:
        """The same in a mirror that flips x: hands of the other side."""
        flip = self.joints.new_tensor([-1.0, 1.0, 1.0])
        return Samples(self.probability, self.joints * flip, self.pose.mirrored())


@torch.no_grad()
def sample_hands(
    grasps: EncodedGrasps, objects: ObjectSet, which: Tensor, pose: HandPose, mean: ContactField, count: int,
    score_weights: ScoreWeights, config: RefineConfig, seed: int, evidence: Sequence[Term] = (),
) -> Samples:  # fmt: skip
    """``count`` plausible right hands for each of ``B``, object frame.

    At most ``config.batch_size`` are solved for at once, or ``B``. All ``B`` share the draws of the latent, so that
    none depends on its place in the batch. A hand for which the optimiser finds nothing finite has probability zero.

    Args:
        which: ``(B,)`` object of each.
        pose: where the network saw them.
        mean: the mean prediction, which solutions are scored against.
        evidence: what else is known of the hands, which takes part in every solve.
    """
    batch, model = len(pose), grasps.model
    noise = torch.randn(count, grasps.network.config.latent, generator=torch.Generator().manual_seed(seed))
    found, scores = [], []
    for draws in noise.to(mean.contact).split(max(1, config.batch_size // batch)):
        owner = torch.arange(batch, device=which.device).repeat(len(draws))
        known = [term[owner] for term in evidence]
        solution = optimise(model, objects, which[owner], pose[owner], grasps.draws(draws), config, known)
        hands = solution.state.pose
        seen = mean.at(slice(0))[owner]  # the score asks for joints and the hand's contact alone
        found.append(hands)
        scores.append(score(plausibility(model, objects, which[owner], hands, seen), score_weights))
    by_draw = torch.cat(scores).nan_to_num(-torch.inf).view(count, batch)
    order = by_draw.argsort(dim=0, descending=True, stable=True).T  # (B, K)
    hands = HandPose.cat(found)[(order * batch + torch.arange(batch, device=order.device)[:, None]).flatten()]
    probability = by_draw.softmax(0).T.gather(1, order)
    return Samples(probability, model.joints(hands).unflatten(0, (batch, count)), hands)


def check_samples(count: int | None, config: RefineConfig, name: str = "samples") -> None:
    """Raise ``ValueError`` for a number of samples, called ``name`` by the caller, that cannot be drawn."""
    if count is None:
        return
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"{name}: got {count!r}; give how many hands to draw, 1 or more.")
    if config.method != "regrasp":
        raise ValueError(f"{name}: method {config.method!r} draws none; leave it out, or use 'regrasp'.")
