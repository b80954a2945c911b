"""`regrasp corpus`: the options are those of `contact.corpus.CorpusConfig`."""

from __future__ import annotations

import time

from contact.corpus import CorpusConfig, build_corpus, corpus_hash
from contact.corpus.corpus import count_grasps
from contact.corpus.motions import MotionConfig, build_motions

__all__ = ["CorpusConfig", "corpus"]


def corpus(config: CorpusConfig) -> int:
    """Build the corpus; interrupted and started again it goes on where it was."""
    before, began = count_grasps(config.out), time.monotonic()
    build_corpus(config)
    grasps = count_grasps(config.out)
    minutes = (time.monotonic() - began) / 60
    print(f"{sum(grasps):,} grasps on {sum(n > 0 for n in grasps)} objects in {config.out}")
    if len(grasps) > len(before):
        rate = (sum(grasps) - sum(before)) / minutes
        print(f"{len(grasps) - len(before)} objects made in {minutes:.1f} min, {rate:,.0f} grasps a minute")
    print(f"SHA-256 {corpus_hash(config.out)}")
    if config.motions:
        print(f"motions, {config.motions} an object: SHA-256 {build_motions(config.out, MotionConfig(config.motions))}")
    return 0
