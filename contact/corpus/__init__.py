"""The grasp corpus: procedural objects, synthetic grasps on them, and reading it back."""

from __future__ import annotations

from .corpus import (
    Corpus,
    CorpusConfig,
    build_corpus,
    build_object,
    corpus_hash,
    count_grasps,
    load_corpus,
    load_held_out,
    load_object,
    object_files,
    object_path,
    synthesise,
)

__all__ = [
    "Corpus",
    "CorpusConfig",
    "build_corpus",
    "build_object",
    "corpus_hash",
    "count_grasps",
    "load_corpus",
    "load_held_out",
    "load_object",
    "object_files",
    "object_path",
    "synthesise",
]
