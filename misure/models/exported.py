"""Programs of ``torch.export``, loaded without running anything that their file brings.

``torch.export.load`` unpickles, evaluates expressions and compiles names as Python code. It gets a copy of the file in
memory, made of tensors as plain bytes and of a description whose every string is one that ``torch.export.save`` writes.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from misure.errors import MisureError
from misure.io.reading import reading
from misure.models.logits import located
from misure.models.onnx import Shape, in_pieces

_DESCRIPTION = re.compile(r"models/[\w.-]+\.json|serialized_exported_program\.json")
_CONFIG = re.compile(r"data/(weights|constants)/[\w.-]+_config\.json")
_PICKLED = re.compile(r"data/(weights|constants)/[\w.-]+\.pt|serialized_(state_dict|constants)\.pt")
_EXAMPLES = re.compile(r"data/sample_inputs/[\w.-]+\.pt|serialized_example_inputs\.pt")
_BYTES = re.compile(r"data/weights/weight_\d+|data/constants/tensor_\d+")
_MARKS = re.compile(r"archive_format|archive_version|version|byteorder|\.(data/)?[a-z_]+")
_DROPPED = re.compile(r"extra/.*|extra_files/.*")

_NAME = re.compile(r"[\w.@+/-]*")
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims?|torchvision|quantized|quantized_decomposed)\.(?!(from_file|save)\b)\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|cond|while_loop|map_impl|scan)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
    r"|math\.\w+|torch\._?sym_\w+"
)
_MODULES = re.compile(r'[^"\\\n\r]*')
_ARGUMENTS = re.compile(r'null|\[("\w+"(, "\w+")*)?\]')
_RESULTS = re.compile(r'[\w\[\]", .:/+-]*')
_TEXT_IN_EXPRESSION = re.compile(r"[\w.+-]*")
_EXPRESSION = re.compile(
    r"Symbol|Integer|Float|Rational|Half|One|Zero|NegativeOne|BooleanTrue|BooleanFalse|Add|Mul|Pow|Max|Min|Abs|floor"
    r"|ceiling|Eq|Ne|Gt|Ge|Lt|Le|Equality|Unequality|(Strict)?(Greater|Less)Than|And|Or|Not|Piecewise|ExprCondPair|Where"
    r"|ModularIndexing|(Python)?Mod|(Floor|Clean|Ceil|FloatTrue|IntTrue)Div|(Ceil|Floor|Trunc|Round)ToInt|[LR]Shift"
    r"|PowByNatural|FloatPow|IsNonOverlappingAndDenseIndicator|TruncToFloat|RoundDecimal|ToFloat|Identity"
)
_ARITHMETIC = (ast.Expression, ast.Load, ast.Name, ast.Constant, ast.keyword, ast.BinOp, ast.UnaryOp, ast.Compare)
_SIGNS = (ast.operator, ast.unaryop, ast.cmpop)


class Fixed(nn.Module):
    """An exported program that takes a fixed number of images, or images of a fixed size.

    Args:
        network: The program.
        shape: N, C and the spatial sides that it takes, None where any.
        title: What messages call it.
    """

    def __init__(self, network: nn.Module, shape: Shape, title: str) -> None:
        super().__init__()
        self.network = network
        self.shape = shape
        self.title = title
        self.one_piece = shape[0] not in {None, 1}  # portions are filled up with copies, which its layers see

    def forward(self, images: Tensor) -> Tensor:
        """Return what the program says of every pixel of N x C x spatial."""
        return in_pieces(lambda part: located(self.network(part), part), images, self.shape, self.title)


def open_exported(path: Path) -> tuple[nn.Module, int | None]:
    """Open an exported program, whose layers keep their names.

    Returns:
        The network in evaluation mode, and its number of channels where that is fixed.

    Raises:
        MisureError: If the file is damaged, takes something else than images, or holds what would be run as code.
    """
    with reading(path, "it may be damaged, or no exported program"):
        program = torch.export.load(without_code(path))
        module = torch.export.unflatten(program)
    inputs = set(program.graph_signature.user_inputs)
    values = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs]
    if len(values) != 1 or not isinstance(values[0], Tensor):
        raise MisureError(f"{path.name} takes {len(values)} inputs: export a network that takes images alone")
    sides: Sequence[Any] = values[0].shape  # symbols where the program takes any
    shape = tuple(side if isinstance(side, int) else None for side in sides)
    bound = shape[0] is not None or any(shape[2:])
    return (Fixed(module, shape, path.name) if bound else module).eval(), shape[1]


def without_code(path: Path) -> io.BytesIO:
    """Copy an exported program's file into memory without what ``torch.export.load`` would run as code.

    Example inputs, stack traces and guards are left out: nothing is computed with them.

    Raises:
        MisureError: If anything else in it would be run.
    """
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        for name in dict.fromkeys(source.namelist()):
            place = name if "/" not in name or name.startswith("extra_files/") else name.partition("/")[2]
            if _DROPPED.fullmatch(place):
                continue
            if source.getinfo(name).compress_type != zipfile.ZIP_STORED:
                raise MisureError(f"{path.name} is compressed, which torch.export.save does not do: save it anew")
            target.writestr(name, _harmless(place, source.read(name), path.name))
    copy.seek(0)
    return copy


def _harmless(place: str, content: bytes, title: str) -> bytes:
    if _BYTES.fullmatch(place) or _MARKS.fullmatch(place):
        return content
    if _EXAMPLES.fullmatch(place):
        return b""
    if _DESCRIPTION.fullmatch(place):
        return json.dumps(_checked(json.loads(content), "", title)).encode()
    if _CONFIG.fullmatch(place):
        return json.dumps(_plain_tensors(json.loads(content), title)).encode()
    if _PICKLED.fullmatch(place):
        return _only_weights(content, title)
    raise _refusal(title, f"{place} in it")


def _plain_tensors(config: Any, title: str) -> Any:
    for name, tensor in config["config"].items():
        if tensor["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", tensor["path_name"]):
            raise _refusal(title, f"a pickle for {name}")
    return config


def _only_weights(content: bytes, title: str) -> bytes:
    """Return a pickle of earlier versions in which nothing but tensors is named."""
    try:
        torch.load(io.BytesIO(content), map_location="meta", weights_only=True)
    except Exception as error:
        raise _refusal(title, "a pickle of more than tensors") from error
    return content


def _checked(value: Any, key: str, title: str) -> Any:
    """Return a description without stack traces and guards, in which every string is of its place's kind."""
    if isinstance(value, Mapping) and key not in _KINDS:
        kept = {"nn_module_stack"} if key == "metadata" else value.keys() - {"guards_code"}
        if strange := [name for name in value if name in kept and not _NAME.fullmatch(name)]:
            raise _refusal(title, f"the name {strange[0]!r:.80}")
        return {name: _checked(entry, name, title) for name, entry in value.items() if name in kept}
    if isinstance(value, list):
        return [_checked(entry, key, title) for entry in value]
    if isinstance(value, Mapping) or (isinstance(value, str) and not _KINDS.get(key, _NAME.fullmatch)(value)):
        raise _refusal(title, f"{key}={value!r:.80}")
    return value


def _is_expression(text: str) -> bool:
    """Say whether a text builds a formula, and does nothing else."""
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(_is_arithmetic(node) for node in nodes)


def _is_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and bool(_EXPRESSION.fullmatch(node.func.id))
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return bool(_TEXT_IN_EXPRESSION.fullmatch(node.value))
    return isinstance(node, _ARITHMETIC + _SIGNS)


def _is_structure(text: str, contexts: re.Pattern[str]) -> bool:
    """Say whether a text describes nested lists and dicts, whose keys fit a pattern."""
    waiting = json.loads(text)[1:]
    while waiting:
        part = waiting.pop()
        if not _NAME.fullmatch(part["type"] or "") or not contexts.fullmatch(part["context"] or ""):
            return False
        waiting += part["children_spec"]
    return True


def _refusal(title: str, what: str) -> MisureError:
    return MisureError(
        f"{title} is not opened, since {what} would be run as code: where you trust it, load it in Python with "
        "torch.export.load and pass its module() to misure.explain"
    )


_KINDS: Mapping[str, Callable[[str], object]] = {
    "name": _NAME.fullmatch,
    "as_name": _NAME.fullmatch,
    "expr_str": _is_expression,
    "target": _OPERATOR.fullmatch,
    "as_operator": _OPERATOR.fullmatch,
    "nn_module_stack": _MODULES.fullmatch,
    "in_spec": lambda text: _is_structure(text, re.compile(rf"({_ARGUMENTS.pattern})?")),
    "out_spec": lambda text: _is_structure(text, _RESULTS),
    "as_string": lambda _: True,  # a constant, which is quoted where it becomes code
    "as_strings": lambda _: True,
}
"""What a string may be, by its key; elsewhere a name."""
