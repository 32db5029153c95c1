"""The networks of face-api in torch, as functions of their weights: detector, landmarks, expressions, age, identity.

Each gives the numbers of the original, vladmandic/face-api 1.7.15 (MIT) on TensorFlow.js, and can be differentiated.
`Weights` hold tensors in torch's layouts under the original's names; pixels are in [0, 255].
"""

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]
"""Tensors of one network by the original's names; kernels are (out, in, height, width), matrices (out, in)."""

SIZES = {"detector": 416, "landmarks": 112, "expressions": 112, "age": 112, "identity": 150}
"""Side of the square that each network reads."""

EXPRESSIONS = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
"""Outputs of the network of expressions, in order."""

ANCHORS = ((1.603231, 2.094468), (6.041143, 7.080126), (2.882459, 3.518061), (4.266906, 5.178857), (9.041765, 10.66308))
"""Width and height of the detector's five kinds of boxes, in cells of its grid."""

DETECTOR_MEAN, FACE_MEAN = (117.001, 114.697, 97.404), (122.782, 117.001, 104.298)


def views(pixels: Tensor, boxes: Tensor, size: int, *, centre: bool = True) -> Tensor:
    """The part of each image in a box, on a black square, in its middle or at its top left, and resized.

    The resizing is linear and takes pixel i from i * side / size, as TensorFlow does where corners are not aligned.
    Boxes need not be whole pixels: a pixel counts by its share inside, so that the result is continuous in the box.

    Args:
        pixels: Images, (batch, 3, height, width).
        boxes: Left, top, right and bottom in pixels, (batch, 4).
        size: Side of the results.
        centre: Whether the part lies in the middle of the square.

    Returns:
        (batch, 3, size, size).
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    side = (high - low).max(dim=1, keepdim=True).values
    start = (low + high - side) / 2 if centre else low
    columns, rows = (
        _interpolation(length, size, start[:, i], side[:, 0], low[:, i], high[:, i])
        for i, length in enumerate((pixels.shape[-1], pixels.shape[-2]))
    )
    return rows[:, None] @ pixels @ columns[:, None].mT


def detect(pixels: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    """Every face that the detector considers, 13 x 13 x 5 of them.

    Args:
        pixels: Whole images at the top left of squares, (batch, 3, 416, 416).
        weights: Weights of `tiny_face_detector_model`.

    Returns:
        Log-odds that it is a face, (batch, 845), and its box (left, top, right, bottom) in parts of the square's side,
        (batch, 845, 4).
    """
    x = _normalised(pixels, DETECTOR_MEAN)
    x = F.leaky_relu(F.conv2d(x, weights["conv0/filters"], weights["conv0/bias"]), 0.1)
    for i in range(1, 6):
        x = _max_pool(x, 2, 2)
        x = F.leaky_relu(_separable(x, weights, f"conv{i}"), 0.1)
    x = F.conv2d(_max_pool(x, 2, 1), weights["conv8/filters"], weights["conv8/bias"])
    side = x.shape[-1]
    cells = x.unflatten(1, (len(ANCHORS), 5)).permute(0, 3, 4, 1, 2)
    steps = torch.arange(side, device=x.device)
    corner = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)[:, :, None]
    middle = (corner + cells[..., :2].sigmoid()) / side
    half = cells[..., 2:4].exp() * x.new_tensor(ANCHORS) / (2 * side)
    return cells[..., 4].flatten(1), torch.cat([middle - half, middle + half], dim=-1).flatten(1, 3)


def landmarks(pixels: Tensor, weights: Weights) -> Tensor:
    """The 68 points of a face, (batch, 68, 2), x and y in parts of the square's side: (batch, 3, 112, 112)."""
    return _linear(_dense_features(pixels, weights), weights, "fc").unflatten(1, (68, 2))


def expressions(pixels: Tensor, weights: Weights) -> Tensor:
    """Logits of the seven `EXPRESSIONS`, of which one is true, (batch, 7), of (batch, 3, 112, 112)."""
    return _linear(_dense_features(pixels, weights), weights, "fc")


def age(pixels: Tensor, weights: Weights) -> Tensor:
    """Ages in years, (batch,), of (batch, 3, 112, 112)."""
    x = F.relu(_conv(_normalised(pixels, FACE_MEAN), weights, "entry_flow/conv_in", 2))
    x = _reduction(x, x, weights, "entry_flow/reduction_block_0")
    x = _reduction(x, F.relu(x), weights, "entry_flow/reduction_block_1")
    for i in range(2):
        inner = x
        for j in range(3):
            inner = _separable(F.relu(inner), weights, f"middle_flow/main_block_{i}/separable_conv{j}")
        x = x + inner
    x = _reduction(x, F.relu(x), weights, "exit_flow/reduction_block")
    x = F.relu(_separable(x, weights, "exit_flow/separable_conv"))
    return _linear(x.mean(dim=(2, 3)), weights, "fc/age")[:, 0]


def identity(pixels: Tensor, weights: Weights) -> Tensor:
    """Descriptors of faces, (batch, 128), of (batch, 3, 150, 150); their length is about 1.4."""
    x = F.relu(_scaled(_normalised(pixels, FACE_MEAN), weights, "conv32_down", 2))
    x = F.max_pool2d(x, 3, 2)
    for name in _blocks():
        x = _residual(x, weights, name)
    return F.linear(x.mean(dim=(2, 3)), weights["fc"])


def _blocks() -> Iterator[str]:
    for channels, count in ((32, 3), (64, 3), (128, 2), (256, 2)):
        yield from [f"conv{channels}_down"] * (channels > 32)
        yield from (f"conv{channels}_{i}" for i in range(1, count + 1))
    yield "conv256_down_out"


def _interpolation(length: int, size: int, start: Tensor, side: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Matrices of linear interpolation from `length` pixels, (batch, size, length), of pixels from low to high."""
    steps = torch.arange(size, device=start.device)
    position = start[:, None] + torch.minimum(steps * side[:, None] / size, side[:, None] - 1)
    pixel = torch.arange(length, device=start.device)
    share = (torch.minimum(pixel + 1, high[:, None]) - torch.maximum(pixel, low[:, None])).clamp(0, 1)
    return F.relu(1 - (position[..., None] - pixel).abs()) * share[:, None]


def _normalised(pixels: Tensor, mean: tuple[float, ...]) -> Tensor:
    return (pixels - pixels.new_tensor(mean).view(3, 1, 1)) / 255


def _same(x: Tensor, kernel: int, stride: int, value: float = 0) -> Tensor:
    """Padding to ceil(side / stride) outputs, of which TensorFlow puts the odd pixel below and on the right."""
    pads: list[int] = []
    for side in (x.shape[-1], x.shape[-2]):
        whole = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads += [whole // 2, whole - whole // 2]
    return F.pad(x, pads, value=value)


def _max_pool(x: Tensor, kernel: int, stride: int) -> Tensor:
    return F.max_pool2d(_same(x, kernel, stride, -torch.inf), kernel, stride)


def _conv(x: Tensor, weights: Weights, name: str, stride: int = 1) -> Tensor:
    kernel = weights[f"{name}/filters"]
    return F.conv2d(_same(x, kernel.shape[-1], stride), kernel, weights[f"{name}/bias"], stride)


def _separable(x: Tensor, weights: Weights, name: str, stride: int = 1) -> Tensor:
    """A 3 x 3 convolution of each channel and a 1 x 1 convolution of them all."""
    depthwise = weights[f"{name}/depthwise_filter"]
    x = F.conv2d(_same(x, depthwise.shape[-1], stride), depthwise, stride=stride, groups=x.shape[1])
    return F.conv2d(x, weights[f"{name}/pointwise_filter"], weights[f"{name}/bias"])


def _linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return F.linear(x, weights[f"{name}/weights"], weights[f"{name}/bias"])


def _dense_features(pixels: Tensor, weights: Weights) -> Tensor:
    """Four blocks of four convolutions, each of which reads the sum of those before it: (batch, 256)."""
    x = _normalised(pixels, FACE_MEAN)
    for i in range(4):
        first = _conv if i == 0 else _separable
        total = F.relu(first(x, weights, f"dense{i}/conv0", 2))
        x = total
        for j in range(1, 4):
            total = total + _separable(x, weights, f"dense{i}/conv{j}")
            x = F.relu(total)
    return x.mean(dim=(2, 3))


def _reduction(x: Tensor, activated: Tensor, weights: Weights, name: str) -> Tensor:
    """Half the size: two separable convolutions and a pooling, beside a convolution of the input."""
    inner = _separable(activated, weights, f"{name}/separable_conv0")
    inner = _separable(F.relu(inner), weights, f"{name}/separable_conv1")
    return _max_pool(inner, 3, 2) + _conv(x, weights, f"{name}/expansion_conv", 2)


def _scaled(x: Tensor, weights: Weights, name: str, stride: int = 1) -> Tensor:
    """A convolution and an affine map of each channel; one with a stride has no padding."""
    kernel = weights[f"{name}/conv/filters"]
    padding = kernel.shape[-1] // 2 if stride == 1 else 0
    x = F.conv2d(x, kernel, weights[f"{name}/conv/bias"], stride, padding)
    return x * weights[f"{name}/scale/weights"].view(-1, 1, 1) + weights[f"{name}/scale/biases"].view(-1, 1, 1)


def _residual(x: Tensor, weights: Weights, name: str) -> Tensor:
    """Two convolutions added to the input; those of `down` halve the size."""
    down = "down" in name
    inner = _scaled(F.relu(_scaled(x, weights, f"{name}/conv1", 2 if down else 1)), weights, f"{name}/conv2")
    if down:
        x = F.avg_pool2d(x, 2)
        missing = x.shape[-1] - inner.shape[-1]
        inner = F.pad(inner, (0, missing, 0, missing))
        x = F.pad(x, (0, 0, 0, 0, 0, inner.shape[1] - x.shape[1]))
    return F.relu(x + inner)
