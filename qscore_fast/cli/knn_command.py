"""``qscore knn``: what the nearest training images say of every test image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from qscore_fast.cli.new_parser import add_finite_only, add_json, new_parser
from qscore_fast.cli.terminal import print_result, say

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def knn_parser() -> ArgumentParser:
    """The grammar and help of ``qscore knn``."""
    parser = new_parser(
        """\
Classify the images of one run by their nearest neighbours among those of another: the weighted vote of
DINO (T = 0.07) for several k from one search; --k 200 --temperature 0.1 is InstDisc's. No image is
touched.""",
        """\
examples:
  qscore knn runs/train runs/val
  qscore knn runs/train runs/val --index faiss-hnsw --out knn
  qscore evaluate runs/val --correct knn/knn.parquet

written to the folder of --out:
  knn.parquet   sample_id, label, prediction, correct, confidence at k = 20
  knn.json      accuracies by k and by class, recall of the index""",
    )
    add = parser.add_argument
    add("train", metavar="TRAIN", type=str, help="the folder of a run with embeddings and labels")
    add("test", metavar="TEST", type=str, help="the same of the images to ask about")
    add("--k", type=int, nargs="+", default=[10, 20, 100, 200], help="neighbours that vote")
    add("--temperature", type=float, default=0.07, help="a neighbour weighs exp(cosine / T)")
    add("--weighting", type=Literal["softmax", "uniform"], default="softmax", help="of the votes")
    add(
        "--index",
        type=Literal["exact", "faiss-flat", "faiss-ivf", "faiss-hnsw"],
        default="exact",
        help="how to search; the recall of approximate ones is measured and printed",
    )
    add("--labels", type=str | None, help="sample_id and label of TRAIN, if it has no labels")
    add("--test-labels", type=str | None, help="the same for TEST")
    add(
        "--graph",
        type=str | None,
        help="write the neighbours of TEST among themselves, too: an .npz with a CSR matrix of cosine "
        "distances, as many a row as the largest k",
    )
    add(
        "--device",
        type=str,
        default="cpu",
        help="of the search; FAISS on cuda takes the extra faiss-gpu, exact takes PyTorch alone",
    )
    add("--out", type=str | None, help="write the results to this folder, too")
    add_finite_only(parser)
    return add_json(parser)


def knn(options: Namespace) -> None:
    """Print the accuracies."""
    from qscore_fast.evaluation.probes import check_graph, knn_probe, save_graph

    if options.graph is not None:  # the work should not be done for nothing
        check_graph(options.test, max(options.k, default=0), options.graph)
    found = knn_probe(
        options.train,
        options.test,
        ks=options.k,
        temperature=options.temperature,
        weighting=options.weighting,
        index=options.index,
        labels=options.labels,
        test_labels=options.test_labels,
        device=options.device,
        finite_only=options.finite_only,
    )
    written = [] if options.out is None else found.write(options.out)
    if options.graph is not None:
        written.append(save_graph(options.test, max(options.k), options.graph, options.device))
    result = {**found.to_json(), "files": [str(path) for path in written]}
    print_result(result, found.lines(), options.json)
    for path in written:
        say(f"written {path}")
