"""A small autoregressive model of video tokens: which one comes next, and where the next one lies.

A token is not one of 64,000 classes to it but its digits, predicted one after the other: the FSQ
code of each channel, then the way to the following token. Losses of the digits add up to that of
the token, tables stay small, and adaptive tokens, whose places have to be said too, cost what they
cost. Attention is torch's own, under the mask of the documents (`document_attention`). Queries are
turned by the place that is asked for and keys by their own (rotary embedding), so that "the same
place one frame earlier" is one direction for all places.

Shapes: B batch, L items, K digits, D width, A heads, E channels of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from document_attention import Mask, attend, document_mask
from torch import Tensor, nn

__all__ = ["Cache", "Grid", "WorldModel", "digit_radix", "targets_of"]

Cache = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer so far."""

_ROTARY = (8, 12, 12)
"""Channels of a head turned by t, h and w."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The places of a window.

    Attributes:
        t: Latent frames of a whole window.
        h: Rows.
        w: Columns.
    """

    t: int
    h: int
    w: int

    @property
    def cells(self) -> int:
        """Places of a window."""
        return self.t * self.h * self.w

    def place(self, positions: Tensor) -> Tensor:
        """Number of each position [..., 3], counted over the windows of a document."""
        t, h, w = positions.long().unbind(-1)
        return (t * self.h + h) * self.w + w

    def position(self, place: int) -> tuple[int, int, int]:
        """Undo `place`."""
        rest, w = divmod(place, self.w)
        return *divmod(rest, self.h), w


def digit_radix(num_codes: int, grid: Grid) -> tuple[int, ...]:
    """Of the digits of a token and of the way to the next one.

    Codes of the published family have the digits of their quantiser, others two.
    """
    half = math.isqrt(num_codes - 1) + 1
    codes = (8, 8, 8, 5, 5, 5) if num_codes == 64000 else (half, half)
    # A window without a token in its last and the next one's first frames: rare, and far.
    way = math.isqrt(2 * grid.cells - 1) + 1
    return *codes, way, way


def targets_of(
    tokens_BL: Tensor,
    positions_BL3: Tensor,
    documents_BL: Tensor,
    grid: Grid,
    radix: tuple[int, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    """What is to be said at each item.

    Returns:
        Positions of the next token [B, L, 3], its digits and those of the way to the one behind it
        [B, L, K], and which of them count [B, L, K]: a way counts if the document goes on.
    """
    follows = documents_BL[:, 1:] == documents_BL[:, :-1]
    real = positions_BL3[..., 1] >= 0
    says_BL = F.pad(follows & real[:, 1:] & (documents_BL[:, 1:] >= 0), (0, 1))
    next_BL3 = torch.cat([positions_BL3[:, 1:], positions_BL3[:, -1:]], dim=1)
    way_BL = F.pad((grid.place(next_BL3)[:, 1:] - grid.place(next_BL3)[:, :-1] - 1), (0, 1))
    goes_on_BL = says_BL & F.pad(says_BL[:, 1:], (0, 1))
    digits, counts = list[Tensor](), list[Tensor]()
    for value, which, radices in (
        (torch.cat([tokens_BL[:, 1:], tokens_BL[:, -1:]], dim=1), says_BL, radix[:-2]),
        (way_BL, goes_on_BL, radix[-2:]),
    ):
        rest = value.clamp(min=0) * which
        for base in radices:
            digits.append(rest % base)
            counts.append(which)
            rest = rest // base
        if bool(rest.any()):
            raise ValueError("a token or a way to the next one has too many digits")
    return next_BL3, torch.stack(digits, -1), torch.stack(counts, -1)


class WorldModel(nn.Module):
    """Decoder-only transformer over items of documents.

    Args:
        grid: Of a window.
        radix: See `digit_radix`.
        layers: Transformer layers.
        heads: Of 32 channels each.
        flex: Learn with FlexAttention, which wants a GPU and batches of one size; elsewhere than in
            training the mask is stored as a whole.
    """

    def __init__(
        self,
        grid: Grid,
        radix: tuple[int, ...],
        *,
        layers: int = 2,
        heads: int = 2,
        flex: bool = False,
    ) -> None:
        super().__init__()
        width = 32 * heads
        self.grid, self.radix, self.flex = grid, radix, flex
        self.digits = nn.ModuleList(nn.Embedding(base, width) for base in radix[:-2])
        self.begin = nn.Parameter(torch.zeros(width))
        self.row, self.column = nn.Embedding(grid.h, width), nn.Embedding(grid.w, width)
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.read = nn.Linear(width, 2 * width)
        self.said = nn.ModuleList(nn.Embedding(base, 2 * width) for base in radix[:-1])
        self.heads = nn.ModuleList(nn.Linear(2 * width, base) for base in radix)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.05)

    def loss_bits(self, tokens_BL: Tensor, positions_BL3: Tensor, documents_BL: Tensor) -> Tensor:
        """Bits [B, L, 2] that each item costs: the next token, and the way to the one behind."""
        next_BL3, digits_BLK, counts_BLK = targets_of(
            tokens_BL, positions_BL3, documents_BL, self.grid, self.radix
        )
        mask = document_mask(documents_BL, flex=self.flex and self.training)
        read_BLD = self.hidden(tokens_BL, positions_BL3, next_BL3, mask=mask)
        bits: list[Tensor] = []
        for k, head in enumerate(self.heads):
            logits = head(F.gelu(read_BLD))
            nats = F.cross_entropy(logits.flatten(0, 1).float(), digits_BLK[..., k].flatten(),
                                   reduction="none")  # fmt: skip
            bits.append(nats.view_as(tokens_BL) * counts_BLK[..., k] / math.log(2))
            if k < len(self.said):
                read_BLD = read_BLD + self.said[k](digits_BLK[..., k])
        return torch.stack([sum(bits[:-2]), bits[-2] + bits[-1]], dim=-1)  # pyright: ignore

    def hidden(
        self,
        tokens_BL: Tensor,
        positions_BL3: Tensor,
        next_BL3: Tensor,
        *,
        mask: Mask = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """What the digits are read from, [B, L, 2D]; with a cache, of items that continue it."""
        real = positions_BL3[..., 1] >= 0
        rest, inside = tokens_BL * real, torch.zeros((), device=tokens_BL.device)
        for table in self.digits:
            base = table.num_embeddings
            inside = inside + table(rest % base)
            rest = rest // base
        h_BLD = torch.where(real[..., None], inside, self.begin)
        target = next_BL3.clamp(min=0).long()
        h_BLD = h_BLD + self.row(target[..., 1]) + self.column(target[..., 2])
        asked, own = _angles(next_BL3), _angles(positions_BL3)
        for number, layer in enumerate(self.layers):
            h_BLD = layer(h_BLD, asked, own, mask, cache, number)
        return self.read(self.norm(h_BLD))

    @torch.no_grad()
    def sample_next(self, read_D: Tensor, *, temperature: float) -> tuple[int, int]:
        """Draw the next token, and the number of places from it to the one behind it."""
        value, way, base_value, base_way = 0, 0, 1, 1
        for k, (head, base) in enumerate(zip(self.heads, self.radix, strict=True)):
            chances = F.softmax(head(F.gelu(read_D)).float() / temperature, dim=-1)
            digit = torch.multinomial(chances, 1)
            if k < len(self.said):
                read_D = read_D + self.said[k](digit[0])
            if k < len(self.radix) - 2:
                value, base_value = value + base_value * int(digit), base_value * base
            else:
                way, base_way = way + base_way * int(digit), base_way * base
        return value, way + 1


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(
        self,
        h_BLD: Tensor,
        asked: Tensor,
        own: Tensor,
        mask: Mask,
        cache: Cache | None,
        number: int,
    ) -> Tensor:
        size, length, width = h_BLD.shape
        parts = self.qkv(self.norms[0](h_BLD)).view(size, length, 3, self.num_heads, -1)
        q_BALE, k_BALE, v_BALE = parts.permute(2, 0, 3, 1, 4)
        q_BALE, k_BALE = _turn(q_BALE, asked), _turn(k_BALE, own)
        if cache is not None:
            if number < len(cache):
                k_BALE = torch.cat([cache[number][0], k_BALE], dim=2)
                v_BALE = torch.cat([cache[number][1], v_BALE], dim=2)
                cache[number] = k_BALE, v_BALE
            else:
                cache.append((k_BALE, v_BALE))
        mixed = attend(q_BALE, k_BALE, v_BALE, mask)
        h_BLD = h_BLD + self.out(mixed.transpose(1, 2).reshape(size, length, width))
        return h_BLD + self.mlp(self.norms[1](h_BLD))


def _angles(positions_BL3: Tensor) -> Tensor:
    """Turns [B, 1, L, E/2] of the channel pairs: waves of 2 to 32 places along each axis."""
    found: list[Tensor] = []
    for axis, channels in enumerate(_ROTARY):
        waves = math.pi * 2.0 ** torch.linspace(0, -4, channels // 2, device=positions_BL3.device)
        found.append(positions_BL3[..., axis, None].float() * waves)
    return torch.cat(found, -1)[:, None]


def _turn(x_BALE: Tensor, angles: Tensor) -> Tensor:
    first, second = x_BALE.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
