"""The model card: a bundle's manifest as a page for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_zoo.manifest import BundleManifest

if TYPE_CHECKING:
    from trainer.export import Difference


def text(manifest: BundleManifest, differences: list[Difference]) -> str:
    """Markdown for the bundle's README.md."""
    crop, output, codec, training = manifest.input, manifest.heatmaps, manifest.codec, manifest.training
    keypoints = len(manifest.keypoints)
    millions = manifest.macs / 1e6, manifest.parameters / 1e6
    facts = [
        ("Keypoints", f"{keypoints} of `{manifest.skeleton}`: {', '.join(manifest.keypoints)}"),
        (
            "Input",
            f"`{crop.name}` (N, {crop.height}, {crop.width}, 3) {crop.dtype} {crop.channels}, raw pixels",
        ),
        (
            "Output",
            f"`{output.name}` (N, {keypoints}, {output.height}, {output.width}) float32, best possible peak 1",
        ),
        (
            "Crop",
            f"person box x {crop.padding:g}, grown to the crop's aspect; pixels `{manifest.pixel_convention}`",
        ),
        (
            "Codec",
            f"{codec.kind}, sigma {codec.sigma_cells:g} cells of {output.stride:g} px; `{codec.decoder}`",
        ),
        ("Size", f"{millions[0]:.1f} million multiply-adds, {millions[1]:.2f} million parameters"),
        ("Format", f"ONNX opset {manifest.opset}"),
    ]
    trained = [
        ("Command", f"`{training.command}`"),
        ("Seed", str(training.seed)),
        ("Length", f"{training.epochs:g} epochs, {training.hours:g} hours on {training.hardware}"),
        ("Started", training.started),
        ("Versions", ", ".join(f"{name} {version}" for name, version in training.versions.items())),
    ]
    return "\n".join(
        [
            f"# {manifest.name} {manifest.version}",
            "",
            f"{manifest.description}.",
            "",
            f"**Licence.** {manifest.licence}.",
            "",
            *_table(("", ""), facts),
            "",
            "## Accuracy",
            "",
            "Of the exported graph, on crops about the labelled boxes, no flip test; none of these was trained on.",
            "PCK@0.2: within 0.2 of the torso diagonal, mean over the twelve limb joints. PCKh@0.5: within half of the",
            "segment from neck to head top. OKS-AP: COCO's, on the labelled boxes.",
            "",
            *_table(
                ("Set", "People", "Metric", "Value", "Decoder", "Command"),
                [
                    (
                        each.data,
                        str(each.people),
                        each.metric,
                        f"{each.value:.1f}",
                        each.decoder,
                        f"`{each.command}`",
                    )
                    for each in manifest.accuracy
                ],
            ),
            "",
            "## Training",
            "",
            *_table(("", ""), trained),
            "",
            *_table(
                ("Set", "People", "Terms"),
                [(each.name, str(each.people), each.licence) for each in training.data],
            ),
            "",
            "The whole configuration stands in `manifest.json` under `training.config`.",
            "",
            "## Agreement of the nets",
            "",
            "Largest difference from the trained net on real crops, in the heatmaps and in sure keypoints:",
            "",
            *_table(
                ("Net", "Heatmap", "Keypoint, crop px"),
                [(each.net, f"{each.heatmap:.1e}", f"{each.points_px:.1e}") for each in differences],
            ),
            "",
            "## Limits",
            "",
            *(f"- {limit}" for limit in _LIMITS),
            "",
        ]
    )


_LIMITS = (
    "One person per crop: with several people in a box, joints of different people may mix.",
    "Scores are the heights of the maps' peaks; they are no calibrated probabilities.",
    "Left and right are confused most often in views from behind and in people who are upside down.",
    "A joint outside the picture still gets a position inside the crop, with a low score.",
    "Not made for, and not to be used for, identifying people or judging their health, mood or intent.",
)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows)]
