"""scikit-learn estimators as parameters and fitted attributes, and decision trees as arrays of nodes."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from satlight.errors import SatlightError

ESTIMATORS = (
    "sklearn.cluster.KMeans",
    "sklearn.decomposition.PCA",
    "sklearn.ensemble.RandomForestRegressor",
    "sklearn.feature_extraction.text.TfidfTransformer",
    "sklearn.feature_extraction.text.TfidfVectorizer",
    "sklearn.linear_model.LinearRegression",
    "sklearn.linear_model.LogisticRegression",
    "sklearn.linear_model.Ridge",
    "sklearn.neural_network.MLPRegressor",
    "sklearn.preprocessing.StandardScaler",
    "sklearn.tree.DecisionTreeRegressor",
)
"""Estimators that a router folder may hold; no other one is imported."""

NOT_STORED = frozenset({"labels_", "loss_curve_", "_optimizer", "_random_state", "_stop_words_id"})
"""Fitted attributes that predictions do without: rows of the training data, the state of the training."""


def path_of(value: Any) -> str | None:
    """Return the public import path of an estimator in :data:`ESTIMATORS`; None for anything else."""
    names = [*type(value).__module__.split("."), type(value).__name__]
    path = ".".join(name for name in names if not name.startswith("_"))
    return path if path in ESTIMATORS else None


def parts(estimator: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters and the fitted attributes of an estimator.

    Example:
        >>> from sklearn.linear_model import Ridge
        >>> params, fitted = parts(Ridge(alpha=2.0).fit([[0.0], [1.0]], [0.0, 1.0]))
        >>> params["alpha"], sorted(fitted)
        (2.0, ['coef_', 'intercept_', 'n_features_in_', 'n_iter_', 'solver_'])
    """
    params = estimator.get_params(deep=False)
    fitted = {name: value for name, value in vars(estimator).items() if name not in params and name not in NOT_STORED}
    if "vocabulary_" in fitted:  # numpy integers, of which there may be 100,000
        fitted["vocabulary_"] = {token: int(column) for token, column in fitted["vocabulary_"].items()}
    return params, dict(sorted(fitted.items()))


def build(path: str, params: Mapping[str, Any], fitted: Mapping[str, Any], where: str) -> Any:
    """Build what :func:`parts` took apart.

    Raises:
        SatlightError: An estimator that is not in :data:`ESTIMATORS`.
    """
    if path not in ESTIMATORS:
        raise SatlightError(
            f"{where}: class_path is {path!r}; allowed estimators are {', '.join(ESTIMATORS)}. Save "
            "the router again with one of these"
        )
    module, _, name = path.rpartition(".")
    estimator = getattr(import_module(module), name)(**params)
    vars(estimator).update(fitted)
    return estimator


def is_tree(value: Any) -> bool:
    """Tell the nodes of a fitted decision tree from other objects."""
    return (type(value).__module__, type(value).__name__) == ("sklearn.tree._tree", "Tree")


def tree_parts(tree: Any) -> dict[str, Any]:
    """Return sizes, node arrays and leaf values of a fitted tree."""
    _, (num_features, classes, num_outputs), state = tree.__reduce__()
    return {
        "num_features": num_features,
        "classes": classes,
        "num_outputs": num_outputs,
        "max_depth": state["max_depth"],
        "nodes": {name: state["nodes"][name] for name in state["nodes"].dtype.names},
        "values": state["values"],
    }


def build_tree(content: Mapping[str, Any]) -> Any:
    """Build the tree that :func:`tree_parts` took apart.

    Raises:
        SatlightError: Nodes that point out of the tree, which scikit-learn would follow unchecked.
    """
    from sklearn.tree._tree import NODE_DTYPE, Tree

    columns, values = content["nodes"], content["values"]
    count, num_features, num_outputs = len(values), content["num_features"], content["num_outputs"]
    nodes = np.zeros(count, dtype=NODE_DTYPE)
    for name in NODE_DTYPE["names"] if isinstance(NODE_DTYPE, dict) else NODE_DTYPE.names:
        nodes[name] = columns[name]
    here = np.arange(count)
    is_leaf = nodes["left_child"] == -1
    for child in (nodes["left_child"], nodes["right_child"]):
        if ((child <= here) | (child >= count))[~is_leaf].any():
            raise SatlightError("a decision tree has nodes that point out of it; save the router again")
    feature = nodes["feature"][~is_leaf]
    classes = np.asarray(content["classes"], dtype=np.intp)
    if (
        ((feature < 0) | (feature >= num_features)).any()
        or len(classes) != num_outputs
        or values.shape[1:] != (num_outputs, classes.max(initial=1))
        or not count
    ):
        raise SatlightError("a decision tree does not fit its number of features or outputs; save the router again")
    tree = Tree(num_features, classes, num_outputs)
    tree.__setstate__({"max_depth": content["max_depth"], "node_count": count, "nodes": nodes, "values": values})
    return tree
