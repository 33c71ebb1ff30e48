"""``parity.html``: what was lost on the way to the device, with the pixels where it was lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cclseg import __version__, report

from .gallery import BETTER_BGR, OTHER_BGR, WORSE_BGR

if TYPE_CHECKING:
    from cclseg.spec import ModelSpec

    from .gallery import Gallery

_LAYERS_SHOWN = 16


def parity_page(content: Mapping[str, Any], spec: ModelSpec, gallery: Gallery | None) -> str:
    """Builds the page.

    Args:
        content: Content of ``parity.json``.
        spec: Names and colours of the classes.
        gallery: Pictures; None where nothing was measured.
    """
    rejected = any(file["rejected"] for file in content["files"])
    state = "rejected" if rejected else "within its budget" if content["data"] else "exported"
    title = f"{content['model']}: {state}"
    sections = [
        *_pictures(content, spec, gallery),
        *_files(content),
        *_classes(content, spec),
        *_search(content),
        *_making(content, spec),
    ]
    notices = [report.notice(content["headlines"])] if content["headlines"] else []
    if content["advice"]:
        advice = [report.element("b", "What to try"), *content["advice"]]
        notices.append(report.notice(advice, good=True))
    return report.page(
        title,
        report.element("h1", title),
        report.element("p", _story(content), class_="lead"),
        *notices,
        *_key_figures(content),
        *sections,
        report.element(
            "footer",
            f"Made by cclseg {__version__}. Points are hundredths of IoU. Times are medians of one "
            "tile, all files of a backend measured in turns on this machine.",
        ),
    )


def _story(content: Mapping[str, Any]) -> str:
    origin, data = content["origin"], content["data"]
    library = "torch" if origin["kind"] == "checkpoint" else "ONNX Runtime"
    if data is None:
        return f"Made from {origin['file']}. No labelled images were given to measure it on."
    reference = content["reference"]
    beside = f"{reference['file']}, the reference," if reference else f"the original in {library}"
    return (
        f"Every file made from {origin['file']} was run on {data['images']} labelled images of "
        f"{data['name']} (split {data['split']}) beside {beside} on every backend of this machine. "
        f"No class may lose more than {content['budget_points']:g} points of IoU."
    )


def _judged(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the file that the page is about: the first INT8 one, or else the last."""
    files = content["files"]
    return next((file for file in files if file["precision"] == "int8"), files[-1])


def _key_figures(content: Mapping[str, Any]) -> Iterator[report.Html]:
    judged, fp32 = _judged(content), content["files"][0]
    if not judged["backends"]:
        return
    best = max(judged["backends"].values(), key=lambda f: f.get("latency_ratio", 0))
    worst = max(_worst_loss(figures) for figures in judged["backends"].values())
    tiles = {
        f"mean IoU, {best['miou_reference']:.3f} before": f"{best['miou']:.3f}",
        f"points of IoU in {worst[1]}, which loses most": _points(-worst[0]),
        "of all pixels get the same class": f"{100 * best['agreement']:.1f} %",
    }
    if "latency_ratio" in best:
        tiles["as fast as the fp32 file"] = f"{best['latency_ratio']:.2f} ×"
    tiles[f"MB, {fp32['bytes'] / 1e6:.1f} in fp32"] = f"{judged['bytes'] / 1e6:.1f}"
    yield report.tiles(tiles)


def _pictures(
    content: Mapping[str, Any], spec: ModelSpec, gallery: Gallery | None
) -> Iterator[report.Html]:
    if gallery is None or not gallery.rows:
        return
    precision = _judged(content)["precision"].upper()
    heads = ("image", "label", "original", precision, "difference")
    rows = [
        [
            report.picture(
                panel,
                f"{head} of {row.stem}",
                lossless=head not in ("image", "difference"),
                caption={
                    "image": row.stem,
                    "difference": f"{100 * row.differing:.1f} % differ",
                }.get(head, head),
            )
            for head, panel in zip(heads, row.panels, strict=True)
        ]
        for row in gallery.rows
    ]
    marks = [(better[2], better[1], better[0]) for better in (BETTER_BGR, WORSE_BGR, OTHER_BGR)]
    yield report.section(
        "Where they differ most",
        report.legend(spec.class_names, spec.palette),
        report.contact_sheet(heads, rows),
        report.element("p"),
        report.legend(
            (
                f"only {precision} is right",
                "only the original is right",
                "both are wrong, or there is no label",
            ),
            marks,
        ),
    )


def _files(content: Mapping[str, Any]) -> Iterator[report.Html]:
    if content["data"] is None:
        return
    columns = (
        "file", "backend", "mIoU", "change", "worst class", "same class", "where sure",
        "ms a tile", "× as fast",
    )  # fmt: skip
    rows = [
        (
            file["name"],
            backend,
            f"{figures['miou']:.4f}",
            _points(100 * (figures["miou"] - figures["miou_reference"])),
            _loss(*_worst_loss(figures), budget=content["budget_points"]),
            f"{100 * figures['agreement']:.2f} %",
            _figure(figures["agreement_where_sure"], ".2%").replace("%", " %"),
            _figure(figures.get("latency_ms"), ".3g"),
            _figure(figures.get("latency_ratio"), ".2f"),
        )
        for file in (*content["files"], *_rivals(content))
        for backend, figures in file["backends"].items()
    ]
    yield report.section(
        "Files and backends",
        report.table(columns, rows),
        *(_rival_story(content) for _ in _rivals(content)),
        report.element(
            "p",
            "Change in points of mean IoU. “Where sure” counts only pixels to which the original "
            "gives at least 60 %: elsewhere two classes nearly tie, and any rounding decides.",
        ),
    )


def _rivals(content: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if content["rival"]:
        yield content["rival"] | {"name": f"INT8 of {content['reference']['file']}, untrained"}


def _rival_story(content: Mapping[str, Any]) -> report.Html:
    return report.element(
        "p",
        f"“Untrained”: INT8 made from {content['reference']['file']} with the same layers in "
        "floating point. Where that meets the budget, training with quantisation must give a "
        "higher mean IoU to be worth its while.",
    )


def _classes(content: Mapping[str, Any], spec: ModelSpec) -> Iterator[report.Html]:
    judged = _judged(content)
    if not judged["backends"]:
        return
    first = next(iter(judged["backends"].values()))
    rows = [
        (
            report.swatch(name, rgb),
            report.share_bar(_before(first, name)),
            *(
                _change(figures["iou_loss_points"][name], content["budget_points"])
                for figures in judged["backends"].values()
            ),
        )
        for name, rgb in zip(spec.class_names, spec.palette, strict=True)
    ]
    precision = judged["precision"].upper()
    columns = ("class", "IoU of the original", *(f"{precision}, {b}" for b in judged["backends"]))
    yield report.section(
        "What each class gains or loses",
        report.table(columns, rows),
        report.element("p", "In points of IoU. Red: more than the budget."),
    )


def _search(content: Mapping[str, Any]) -> Iterator[report.Html]:
    search, kept = content["search"], _judged(content)["kept_float"]
    if search is None:
        if kept:
            text = "Asked for with --keep-float: " + ", ".join(kept) + "."
            yield report.section("Layers in floating point", report.element("p", text))
        return
    trials = [
        (
            f"{len(trial['kept'])} layers",
            _loss(trial["loss_points"], trial["place"], budget=content["budget_points"]),
            "yes" if trial["passes"] else "no",
        )
        for trial in search["trials"]
    ]
    parts = [report.element("p", _search_story(content))]
    if search["kept_float"]:
        modules = {layer["node"]: layer["module"] for layer in search["layers"]}
        reasons: dict[str, report.Content] = {
            f"{modules[node]} ({node})" if modules.get(node) else node: why
            for node, why in search["kept_float"].items()
        }
        parts += [report.element("h3", "Why they stay"), report.facts(reasons)]
        parts.append(report.element("p"))
    parts += [_layer_table(search["layers"]), report.element("p")]
    parts.append(report.table(("tried in floating point", "likely loss", "within budget"), trials))
    parts.append(
        report.element(
            "p",
            "Likely loss: what the worst class stays below in 19 of 20 draws, with replacement, "
            "of the images of the split, or what it would lose if all the pixels by which it "
            "shrinks or grows were right before, whichever is more. It must be within the budget, "
            "so that the outcome does not hang on a few images.",
        )
    )
    yield report.section("Layers in floating point", *parts)


def _search_story(content: Mapping[str, Any]) -> str:
    search = content["search"]
    kept, split = len(search["kept_float"]), search["split"]
    if not search["within_budget"]:
        outcome = (
            f"No mixture that was tried brings the split {split} into the budget; the best of "
            f"them, with {kept} layers in floating point, was written."
        )
    elif kept:
        outcome = (
            f"{kept} of {len(search['layers'])} layers stay in floating point; with them the split "
            f"{split} is within the budget."
        )
    else:
        outcome = f"None is needed: INT8 throughout meets the budget on the split {split}."
    stopped = "" if search["complete"] else " The time was up before the search came to its end."
    return (
        f"{outcome}{stopped} Layers are ranked by the error that each adds alone to the logits of "
        "unlabelled tiles, and the fewest of them are kept that do."
    )


def _layer_table(layers: list[Mapping[str, Any]]) -> report.Html:
    shown = [
        layer for place, layer in enumerate(layers) if place < _LAYERS_SHOWN or layer["kept_float"]
    ]
    has_costs = any(layer["miou_cost_points"] is not None for layer in shown)
    rows = [
        (
            layer["module"] or layer["node"],
            layer["node"],
            layer["op"],
            f"{layer['snr_db']:.1f} dB",
            report.share_bar(layer["share"]),
            *([_figure(layer["miou_cost_points"], "+.2f")] if has_costs else []),
            report.element("b", "float") if layer["kept_float"] else "INT8",
        )
        for layer in shown
    ]
    columns = (
        "layer", "node", "operator", "signal to noise", "share of the error",
        *(["mIoU cost alone"] if has_costs else []), "computed in",
    )  # fmt: skip
    return report.table(columns, rows)


def _making(content: Mapping[str, Any], spec: ModelSpec) -> Iterator[report.Html]:
    machine, calibration = content["machine"], content["calibration"]
    facts: dict[str, report.Content] = {
        "made from": f"{content['origin']['file']}, SHA-256 {content['origin']['sha256']}",
        "input": f"{spec.input_hw[1]} × {spec.input_hw[0]} px, {', '.join(spec.bands)}",
    }
    if content["conversion_error"] is not None:
        facts["ONNX against torch"] = (
            f"{content['conversion_error']:.1e} of the largest logit at most"
        )
    if calibration:
        percentile = f" {calibration['percentile']:g} %" if calibration["percentile"] else ""
        facts["calibration"] = (
            f"{calibration['tiles']} tiles of real images, {calibration['method']}{percentile}"
        )
    facts["machine"] = (
        f"{machine['cpu']}, {machine['threads']} threads, {', '.join(machine['instruction_sets'])}"
    )
    facts["versions"] = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    facts["time"] = ", ".join(f"{step} {s:.0f} s" for step, s in content["seconds"].items())
    yield report.section("How it was made", report.facts(facts))


def _worst_loss(figures: Mapping[str, Any]) -> tuple[float, str]:
    losses = ((loss, name) for name, loss in figures["iou_loss_points"].items() if loss is not None)
    return max(losses, default=(0.0, "no class"))


def _before(figures: Mapping[str, Any], name: str) -> float | None:
    iou, loss = figures["iou"][name], figures["iou_loss_points"][name]
    return None if iou is None or loss is None else iou + loss / 100


def _loss(points: float, place: str, *, budget: float) -> report.Html:
    """A loss with where it is; red outside the budget."""
    return report.joined([_change(points, budget), f" {place}"])


def _change(loss_points: float | None, budget: float) -> report.Html:
    """The change that a loss is, with its sign; red outside the budget."""
    if loss_points is None:
        return report.joined(["–"])
    text = _points(-loss_points)
    return (
        report.element("span", text, class_="lost")
        if loss_points > budget
        else report.joined([text])
    )


def _points(gain: float) -> str:
    """A gain with its sign; +0.00 for what rounds to nothing."""
    return f"{round(gain, 2) + 0.0:+.2f}"


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
