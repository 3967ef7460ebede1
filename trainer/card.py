"""The model card: a bundle's manifest as a page for people."""

from __future__ import annotations

from pathlib import Path

from model_zoo import skeletons
from model_zoo.manifest import BundleManifest, Quantisation
from trainer.config import Data


def text(manifest: BundleManifest) -> str:
    """Markdown for the bundle's README.md."""
    crop, training = manifest.input, manifest.training
    subject = skeletons.skeleton(manifest.skeleton).subject
    keypoints = len(manifest.keypoints)
    millions = manifest.macs / 1e6, manifest.parameters / 1e6
    facts = [
        ("Keypoints", f"{keypoints} of `{manifest.skeleton}`: {', '.join(manifest.keypoints)}"),
        (
            "Input",
            f"`{crop.name}` (N, {crop.height}, {crop.width}, 3) {crop.dtype} {crop.channels}, raw pixels",
        ),
        *_outputs(manifest),
        (
            "Crop",
            f"{subject} box x {crop.padding:g}, grown to the crop's aspect; pixels `{manifest.pixel_convention}`",
        ),
        ("Size", f"{millions[0]:.1f} million multiply-adds, {millions[1]:.2f} million parameters"),
        ("Format", f"ONNX opset {manifest.opset}"),
        ("Graphs", _graphs(manifest)),
    ]
    trained = [
        *(("Command before", f"`{each}`") for each in training.before),
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
            f"Of the exported graphs, on crops about the labelled boxes, no flip test; {_learnt_from(manifest)}. In",
            "per cent; of errors and ECE less is better.",
            "",
            *_meanings(manifest),
            "",
            *_table(
                ("Set", "Crops", "Metric", "Precision", "Value", "Decoder", "Command"),
                [
                    (
                        each.data,
                        str(each.people),
                        each.metric,
                        each.precision,
                        f"{each.value:.1f}",
                        each.decoder,
                        f"`{each.command}`",
                    )
                    for each in manifest.accuracy
                ],
            ),
            "",
            *_latency(manifest),
            *_documents(manifest),
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
            "Largest difference from the trained net on real crops, in the heatmaps and in sure keypoints; that of the",
            "decoder in the graph is from the same decoder outside of it:",
            "",
            *_agreement(manifest),
            "",
            *_calibration(manifest),
            *_quantisation(manifest.quantisation),
            "## Limits",
            "",
            *(f"- {limit}" for limit in _limits(manifest)),
            "",
        ]
    )


def _learnt_from(manifest: BundleManifest) -> str:
    """Which of the sets that figures are of the net was trained on."""
    sources = Data.model_validate(manifest.training.config["data"]).train
    names = {source.name for source in sources}
    learnt = sorted({each.data for each in manifest.accuracy} & names)
    return f"trained on {', '.join(learnt)}" if learnt else "none of these was trained on"


_METRICS = {
    "PCK@0.2": "within 0.2 of the torso diagonal, mean over the twelve limb joints",
    "PCKh@0.5": "within half of the segment from neck to head top, mean over limbs, neck and head top",
    "OKS-AP": "COCO's, on the labelled boxes",
    "PCK@0.1box": "within 0.1 of the long side of the labelled box, mean over the keypoints",
    "mean error of box": "mean distance of keypoints from their labels, of the long side of the labelled box",
    "depth error": "mean error of z from the root keypoint, of the long side of the labelled box",
    "presence AUC": "how often a crop with somebody gets a higher probability than one of nobody, ties half",
    "gesture accuracy": "how often the likeliest gesture is the labelled one, where somebody is there",
    "handedness accuracy": "how often the likelier hand is the labelled one",
    "presence ECE": "expected calibration error of presence: how far probability and frequency are apart, mean over 15 "
    "equal bins",
    "gesture ECE": "the same of the likeliest gesture",
    "handedness ECE": "the same of the likelier hand",
    "score ECE": "the same of keypoints' scores, as probabilities that they lie within 0.1 of the long side of the "
    "labelled box",
}
"""What a figure means."""


def _meanings(manifest: BundleManifest) -> list[str]:
    used = {each.metric for each in manifest.accuracy}
    return [f"- {name}: {meaning}." for name, meaning in _METRICS.items() if name in used]


def _latency(manifest: BundleManifest) -> list[str]:
    if not manifest.latency:
        return []
    rows = [
        (
            each.precision,
            f"{each.ratio:.2f}x",
            each.reference,
            f"{each.ms:.2f}",
            each.hardware,
            f"`{each.command}`",
        )
        for each in manifest.latency
    ]
    return [
        "## Latency",
        "",
        "Processor time of one crop on one thread, keypoints and all other outputs; the ratio is to the reference,",
        "measured in turns with it in the same run, and holds elsewhere better than milliseconds do.",
        "",
        *_table(("Precision", "Ratio", "Reference", "ms", "Processor", "Command"), rows),
        "",
    ]


def _documents(manifest: BundleManifest) -> list[str]:
    pages = [each for each in manifest.documents if each.endswith(".md")]
    if not pages:
        return []
    return ["## Further reading", "", *(f"- [{each}]({each})" for each in pages), ""]


def _outputs(manifest: BundleManifest) -> list[tuple[str, str]]:
    keypoints, facts = len(manifest.keypoints), []
    if (maps := manifest.heatmaps) is not None:
        shape = f"(N, {keypoints}, {maps.height}, {maps.width})"
        facts.append(("Output", f"`{maps.name}` {shape} float32, best possible peak 1"))
    if (points := manifest.keypoints_output) is not None:
        how = f"decoded by `{points.decoder}`" if points.decoder else "as the net answers them"
        text = f"`{points.name}` (N, {keypoints}, 3) float32, x, y in crop pixels and score, {how}"
        facts.append(("Output", text))
    if (presence := manifest.presence) is not None:
        facts.append(("Output", f"`{presence.name}` (N,) float32, probability that a {presence.of} is there"))
    for each in manifest.classes:
        text = f"`{each.name}` (N, {len(each.labels)}) float32, probabilities of {', '.join(each.labels)}"
        turned = ", which a mirrored crop exchanges" if each.mirror else ""
        facts.append(("Output", text + turned))
    if (depth := manifest.depth) is not None:
        text = f"`{depth.name}` (N, {keypoints}) float32, z relative to `{depth.root}`"
        facts.append(("Output", f"{text} in units of {depth.scale:g} crop px, larger is farther"))
    if maps is not None and (codec := manifest.codec) is not None:
        cells = f"{codec.sigma_cells:g} cells of {maps.stride:g} px"
        facts.append(("Codec", f"{codec.kind}, sigma {cells}; `{codec.decoder}`"))
    return facts


def _graphs(manifest: BundleManifest) -> str:
    names = {"fp32": manifest.model_file, "int8": manifest.int8_file}
    return ", ".join(f"`{name}` ({precision})" for precision, name in names.items() if name)


def _agreement(manifest: BundleManifest) -> list[str]:
    rows = [
        (each.net, each.heatmap, each.points_px, each.probability, each.depth_px)
        for each in manifest.agreement
    ]
    head = ("Net", "Heatmap", "Keypoint, crop px", "Probability", "Depth, crop px")
    used = [i for i in range(len(head)) if i < 3 or any(row[i] is not None for row in rows)]
    cells = [(row[0], *("" if each is None else f"{each:.1e}" for each in row[1:])) for row in rows]
    return _table(tuple(head[i] for i in used), [tuple(row[i] for i in used) for row in cells])


def _calibration(manifest: BundleManifest) -> list[str]:
    if not manifest.calibration:
        return []
    rows = [
        (
            f"`{each.of}`",
            each.event,
            f"{each.scale:.3f} x {each.shift:+.3f}",
            f"{each.data} ({each.count})",
            f"{each.error_before:.3f}",
            f"{each.error:.3f}",
            f"`{each.command}`",
        )
        for each in manifest.calibration
    ]
    bins = ", ".join(sorted({str(each.bins) for each in manifest.calibration}))
    return [
        "## Calibration",
        "",
        "Probabilities were made to come true as often as they say, by an affine map of log-odds x in the graph. The",
        f"error is the expected calibration error in {bins} equal bins, without the map and with it; with it each half",
        "of the cases is judged by a map that was fitted on the other half. Under Accuracy the ECE of these sets is of",
        "maps that were fitted on them, and flatters.",
        "",
        *_table(
            ("Output", "Probability that", "Map", "Fitted on (cases)", "Error before", "Error", "Command"),
            rows,
        ),
        "",
    ]


def _quantisation(made: Quantisation | None) -> list[str]:
    if made is None:
        return []
    facts = [
        ("Ranges", made.method),
        ("Calibrated on", f"{made.crops} crops of {made.data}"),
        ("Shift", f"{made.mean_shift_px:.2f} crop px from the keypoints of fp32, mean weighted by score"),
        ("Command", f"`{made.command}`"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in made.versions.items())),
    ]
    return ["## The graph in 8 bits", "", *_table(("", ""), facts), ""]


def _limits(manifest: BundleManifest) -> list[str]:
    if manifest.score_calibration is None:
        scores = "Scores are as the net gives them; they are no calibrated probabilities."
    else:
        scores = "Probabilities are calibrated on the set named above; on others they may say too much or too little."
    first, *others = _OF_HANDS if skeletons.skeleton(manifest.skeleton).subject == "hand" else _OF_PEOPLE
    names = {Path(each.name).name for each in manifest.training.data}
    names |= {Path(each.data).name for each in manifest.accuracy}
    sets = [said for start, said in _OF_SETS.items() if any(name.startswith(start) for name in names)]
    return [first, _UNLIKE, scores, *others, *sets, _OUTSIDE, _USE]


_UNLIKE = (
    "Best on the kind of picture that the training sets show; the figures differ much between sets, so measure on your "
    "own."
)
_OUTSIDE = "A joint outside the picture still gets a position inside the crop, with a low score."
_USE = "Not made for, and not to be used for, identifying people or judging their health, mood or intent."
_OF_PEOPLE = (
    "One person per crop: with several people in a box, joints of different people may mix.",
    "Close-ups and people cut off by the picture's edge are rare in sets of whole people.",
    "Left and right are confused most often in views from behind and in people who are upside down.",
)
_OF_HANDS = (
    "One hand per crop, in a box that is given: with two in a box, joints of both may mix. Nothing here finds hands.",
    "Which hand it is cannot be told from every crop; where its probability is near a half, ask the rest of the body.",
)
_OF_SETS = {
    "digits_": "Keypoints of the `digits` sets were made by another net, MediaPipe Hands, not by people: an error "
    "there is the distance from that net. They show right hands, palms forward, before plain walls.",
    "presence_": "The `presence` sets are patches of 60x60 pixels: what `presence` says of sharper pictures, or of "
    "things that look like hands, is not measured by them.",
    "handgt_": "`handgt` has 16 hands, the only ones with keypoints by people: a sanity check, no benchmark.",
}
"""By how the name of a set begins: what its figures, or what was learnt from it, suffer from."""


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows)]
