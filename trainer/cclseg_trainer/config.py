"""How a network is trained: one frozen record, stored whole in every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field

from cclseg.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentConfig:
    """How a training crop is drawn and changed.

    Attributes:
        scale: Smallest and largest zoom of a crop, drawn log-uniformly (2.0 doubles every length).
        balanced_share: Share of crops centred on a pixel of a class drawn with the probability
            proportional to exp((1 - f) / temperature), f = the class's share of pixels
            (arXiv:2111.14887); the other crops are uniform over images and places.
        balance_temperature: Smaller values favour rare classes more.
        paste_share: Share of crops into which connected components of rare classes are pasted.
        class_mix_share: Share of crops over which half of the classes of another are laid.
        mosaic_share: Share of crops put together from four.
        virtual_share: Share of crops rendered by the virtual flight (three-band data whose
            classes are those of the virtual flight).
        photometric: Strength of changes of brightness, contrast, gamma and colour; 0 is off.
        blur_share: Share of crops that are blurred.
        noise_share: Share of crops that get sensor noise.
    """

    scale: tuple[float, float] = (0.25, 1.6)
    balanced_share: float = 0.5
    balance_temperature: float = 0.1
    paste_share: float = 0.0
    class_mix_share: float = 0.0
    mosaic_share: float = 0.0
    virtual_share: float = 0.0
    photometric: float = 1.0
    blur_share: float = 0.15
    noise_share: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """Weights of the parts of the loss.

    Attributes:
        labels: Weight of the cross-entropy with the true labels.
        dice: Weight of the Dice loss beside the cross-entropy.
        focal: Weight of the focal loss.
        ohem: Weight of the cross-entropy of the hard pixels alone.
        lovasz: Weight of the Lovász-Softmax loss.
        edge: Weight of the edge heads' loss, the mean over their levels.
        coarse: Weight of the auxiliary head's cross-entropy at stride 16.
        potential: Weight of the potential of superpixels and neighbours on unlabelled pixels.
        sparse: Weight of the regulariser for sparse labels.
        distill: Weight of the teacher's soft labels, where a teacher is given.
        height: Weight of the height head's loss, per metre of mean error, where there is a head.
        tokens: Weight of the token head's loss, where there is a head.
        match: Weight of the squared distance to the teacher's scores, where a teacher is given.
        label_smoothing: Of the cross-entropy.
        dynamic: Let the weights follow how fast each part falls.
    """

    labels: float = 1.0
    dice: float = 1.0
    focal: float = 0.0
    ohem: float = 0.0
    lovasz: float = 0.0
    edge: float = 0.5
    coarse: float = 0.4
    potential: float = 0.0
    sparse: float = 0.0
    distill: float = 1.0
    height: float = 0.05
    tokens: float = 0.5
    match: float = 0.0
    label_smoothing: float = 0.05
    dynamic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything about a training run but the data and the network.

    Attributes:
        steps: Optimiser steps; with ``max_minutes`` the most that may be planned.
        max_minutes: Time budget: the number of steps is fixed after the first ones have been timed.
        batch_size: Crops per step.
        crop_px: Height and width of a crop; a multiple of 32.
        lr: Peak learning rate of the decoder (AdamW).
        encoder_lr_scale: Factor on the learning rate of a pretrained encoder.
        weight_decay: Of convolution weights; norms and biases have none.
        warmup_steps: Steps of linear warm-up.
        poly_power: After the warm-up the rate falls as (1 - progress) ** poly_power.
        frozen_stages: Stages of a pretrained encoder that keep their ImageNet weights and norms.
        freeze_norm_share: Share of the run during which a pretrained encoder's batch norms keep
            their ImageNet statistics.
        ema_decay: Decay of the weight average that is validated and saved.
        val_every: Steps between validations.
        unlabelled_crops: Crops of unlabelled images per step, beside ``batch_size`` labelled ones;
            the weight average labels them where it is sure.
        sure: Confidence from which the weight average labels a pixel.
        seed: Of everything random.
        pretrained: Start the encoder from ImageNet weights where the variant has them.
        quantize: Train the merged network of a checkpoint with the rounding of its INT8 file.
        hidden: Share of a crop that is hidden from a network which is pretrained without labels;
            0 where labels are learnt.
        augment: How crops are made.
        loss: What is minimised.
    """

    steps: int = 2000
    max_minutes: float | None = None
    batch_size: int = 8
    crop_px: int = 320
    lr: float = 2e-3
    encoder_lr_scale: float = 0.1
    weight_decay: float = 0.02
    warmup_steps: int = 100
    poly_power: float = 0.9
    frozen_stages: int = 2
    freeze_norm_share: float = 0.2
    ema_decay: float = 0.998
    val_every: int = 200
    unlabelled_crops: int = 0
    sure: float = 0.95
    seed: int = 1
    pretrained: bool = True
    quantize: bool = False
    hidden: float = 0.0
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        low, high = self.augment.scale
        checks = (
            (self.steps >= 1, f"steps is {self.steps}; expected at least 1"),
            (self.batch_size >= 2, f"batch_size is {self.batch_size}; batch norm needs at least 2"),
            (
                self.crop_px >= 64 and self.crop_px % 32 == 0,
                f"crop_px is {self.crop_px}; expected a multiple of 32, at least 64",
            ),
            (
                self.unlabelled_crops >= 0,
                f"unlabelled_crops is {self.unlabelled_crops}; expected 0 or more",
            ),
            (0 < self.sure <= 1, f"sure is {self.sure}; expected a confidence in 0..1"),
            (0 <= self.hidden < 1, f"hidden is {self.hidden}; expected a share below 1"),
            (0 < low <= high, f"scale is {self.augment.scale}; expected 0 < smallest <= largest"),
            (
                self.max_minutes is None or self.max_minutes > 0,
                f"max_minutes is {self.max_minutes}; expected a positive time",
            ),
        )
        for holds, problem in checks:
            if not holds:
                raise InputError(f"training configuration: {problem}")


PRETRAINING_RECIPE = TrainConfig(
    hidden=0.5, augment=AugmentConfig(balanced_share=0, paste_share=0, blur_share=0, noise_share=0)
)
"""For a network that learns to see from images without labels.

Half of each crop is hidden. Noise and blur are left out: nobody could predict them.
"""

QUANTIZED_RECIPE = TrainConfig(
    steps=200,
    lr=5e-5,
    warmup_steps=10,
    val_every=200,
    pretrained=False,
    quantize=True,
    loss=LossConfig(labels=0, dice=0, edge=0, coarse=0, distill=0, height=0, tokens=0, match=1),
)
"""For a network that is trained already and only has to learn to live with rounding.

It learns the scores that it has in floating point. The true labels would pull it away from what
validation has chosen: crops are drawn to favour rare classes.
"""
