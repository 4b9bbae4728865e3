"""Transformers of scikit-learn, through skops, with types from a fixed list only.

skops trusts what it holds safe, a set that changes with its version. Here the content is checked before skops sees it, node by
node, against the list below: transformers whose state is arrays and plain values, and elementwise functions of NumPy.
"""

from __future__ import annotations

import copy
import importlib
import io
import json
import zipfile
from functools import cache
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from ..errors import SerializationError
from ._registry import routing_state, set_routing

__all__ = ["dump", "is_sklearn", "load"]

CLASSES = {
    "sklearn.compose": "ColumnTransformer make_column_selector",
    "sklearn._loss.link": "IdentityLink Interval LogitLink MultinomialLogit",
    "sklearn._loss.loss": "HalfBinomialLoss HalfMultinomialLoss HalfSquaredError",
    "sklearn.decomposition": "PCA TruncatedSVD KernelPCA FastICA FactorAnalysis NMF SparsePCA",
    "sklearn.dummy": "DummyClassifier DummyRegressor",
    "sklearn.ensemble": "HistGradientBoostingClassifier HistGradientBoostingRegressor",
    "sklearn.ensemble._hist_gradient_boosting.binning": "_BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor": "TreePredictor",
    "sklearn.feature_selection": "SelectFdr SelectFpr SelectFwe SelectKBest SelectPercentile VarianceThreshold",
    "sklearn.impute": "KNNImputer MissingIndicator SimpleImputer",
    "sklearn.kernel_approximation": "AdditiveChi2Sampler Nystroem PolynomialCountSketch RBFSampler SkewedChi2Sampler",
    "sklearn.linear_model": "LogisticRegression Ridge",
    "sklearn.pipeline": "FeatureUnion Pipeline",
    "sklearn.preprocessing": (
        "Binarizer FunctionTransformer KBinsDiscretizer KernelCenterer LabelBinarizer LabelEncoder MaxAbsScaler MinMaxScaler "
        "Normalizer OneHotEncoder OrdinalEncoder PolynomialFeatures PowerTransformer QuantileTransformer RobustScaler "
        "SplineTransformer StandardScaler TargetEncoder"
    ),
    "sklearn.random_projection": "GaussianRandomProjection",
    "scipy.interpolate": "BSpline",
}
FUNCTIONS = {
    "numpy": "abs absolute arcsinh cbrt cos exp exp2 expm1 log log10 log1p log2 negative reciprocal rint sign sin sqrt square tanh",
    "sklearn.feature_selection": "chi2 f_classif f_regression mutual_info_classif mutual_info_regression r_regression",
}
PLAIN = {
    "DictNode": {"builtins.dict", "collections.OrderedDict"},
    "ListNode": {"builtins.list"},
    "TupleNode": {"builtins.tuple"},
    "SetNode": {"builtins.set"},
    "SliceNode": {"builtins.slice"},
    "DTypeNode": {"numpy.dtype"},
    "RandomStateNode": {"numpy.random.mtrand.RandomState"},
    "RandomGeneratorNode": {"numpy.random._generator.Generator"},
    "LossNode": {
        f"sklearn._loss._loss.Cy{name}" for name in ("HalfBinomialLoss", "HalfMultinomialLoss", "HalfSquaredError")
    },
}


@cache
def allowed() -> dict[str, set[str]]:
    """Full names of the types that may occur, by the kind of node that holds them."""
    scalars = {t for t in np.sctypeDict.values() if t.__module__ == "numpy"} | {np.bool_}
    names = {f"numpy.{t.__name__}" for t in scalars}
    abstract = {"numpy.generic", "numpy.number", "numpy.integer", "numpy.floating", "numpy.character"}
    builtin = {f"builtins.{t}" for t in ("bool", "float", "int", "object", "str")}
    functions = {_full_name(module, name) for module, names in FUNCTIONS.items() for name in names.split()}
    # scipy's splines carry the function that makes their arrays.
    functions.add("scipy._lib.array_api_compat.numpy._aliases.asarray")
    return {
        **PLAIN,
        "NdArrayNode": {"numpy.ndarray", *names},
        "TypeNode": builtin | names | abstract,
        "ObjectNode": {_full_name(module, name) for module, names in CLASSES.items() for name in names.split()},
        "FunctionNode": functions,
    }


def _full_name(module: str, name: str) -> str:
    found = getattr(importlib.import_module(module), name)
    return f"{module}.{name}" if isinstance(found, np.ufunc) else f"{found.__module__}.{found.__name__}"


def is_sklearn(value: Any) -> bool:
    """Whether `value` is an estimator of scikit-learn itself."""
    return isinstance(value, BaseEstimator) and type(value).__module__.partition(".")[0] == "sklearn"


def dump(estimator: Any, where: str) -> tuple[bytes, dict[str, Any] | None]:
    """Return an estimator as bytes, and its metadata requests.

    Raises
    ------
    SerializationError
        If something in it is not on the list.
    """
    from skops import io as skops  # here: it takes a second to import

    estimator, routing = copy.copy(estimator), None
    if "_metadata_request" in vars(estimator):
        routing = routing_state(vars(estimator).pop("_metadata_request"))
    name = f"{where}: {type(estimator).__name__}"
    try:
        data: bytes = skops.dumps(estimator)
        load(data, None, name)  # nothing is saved that could not be loaded
    except SerializationError:
        raise
    except Exception as error:  # skops and what it calls raise many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SerializationError(f"{name} cannot be saved ({reason}).") from error
    return data, routing


def load(data: bytes, routing: dict[str, Any] | None, name: str = "content") -> Any:
    """Inverse of :func:`dump`.

    Raises
    ------
    SerializationError
        If the content has a type that is not on the list.
    """
    from skops import io as skops

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = archive.infolist()
        if any(p.compress_type != zipfile.ZIP_STORED for p in parts) or sum(p.file_size for p in parts) > len(data):
            raise SerializationError(f"{name} is compressed, which fewshot never does.")
        schema = archive.read("schema.json").decode()
    _check(json.loads(schema), name)
    estimator = skops.loads(data, trusted=sorted(set().union(*allowed().values())))
    _check_trees(estimator, name, schema)
    if routing is not None:
        set_routing(estimator, routing)
    return estimator


def _check_trees(estimator: Any, name: str, schema: str) -> None:
    """Raise where a boosted tree leads out of its own arrays, which would read memory that is not the model's."""
    if "TreePredictor" not in schema:
        return
    trees = [tree for stage in getattr(estimator, "_predictors", []) for tree in stage]
    if not trees:
        raise SerializationError(f"{name} holds a boosted model inside another; save the boosted model by itself.")
    for tree in trees:
        nodes = tree.nodes
        inner = nodes[nodes["is_leaf"] == 0]
        children = np.concatenate([inner["left"], inner["right"]])
        parents = np.tile(np.flatnonzero(nodes["is_leaf"] == 0), 2)
        astray = (children <= parents).any() or (children >= len(nodes)).any()
        columns = inner["feature_idx"]
        astray |= (columns < 0).any() or (columns >= estimator.n_features_in_).any()
        if not len(nodes) or astray or inner["is_categorical"].any():
            raise SerializationError(
                f"{name} holds a boosted tree that is damaged, or splits on categories; it cannot be used."
            )


def _check(node: Any, name: str) -> None:
    """Raise at a node, of whatever is built when this JSON value is loaded, that is not on the list."""
    if isinstance(node, list):
        for item in node:
            _check(item, name)
    elif isinstance(node, dict):
        if "__loader__" in node:
            loader = node["__loader__"]
            full_name = f"{node.get('__module__')}.{node.get('__class__')}"
            if loader != "JsonNode" and full_name not in allowed().get(str(loader), ()):
                what = str(node.get("__class__")) if loader == "FunctionNode" else full_name
                raise SerializationError(
                    f"{name} holds {what}, which is not on the list of types that fewshot saves and loads; leave it out, or "
                    "apply it to the data beforehand."
                )
        for item in node.values():
            _check(item, name)
