"""``parity.html``: what was lost on the way to the device, with the pixels where it was lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cclseg import __version__, report

from .gallery import BETTER_BGR, OTHER_BGR, WORSE_BGR
from .layer_section import layer_section
from .page_figures import figure, iou_before, signed_change, signed_loss, signed_points, worst_loss

if TYPE_CHECKING:
    from cclseg.spec import ModelSpec

    from .gallery import Gallery


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
        *layer_section(content, _judged(content)["kept_float"]),
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
    worst = max(worst_loss(figures) for figures in judged["backends"].values())
    tiles = {
        f"mean IoU, {best['miou_reference']:.3f} before": f"{best['miou']:.3f}",
        f"points of IoU in {worst[1]}, which loses most": signed_points(-worst[0]),
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
            signed_points(100 * (figures["miou"] - figures["miou_reference"])),
            signed_loss(*worst_loss(figures), budget=content["budget_points"]),
            f"{100 * figures['agreement']:.2f} %",
            figure(figures["agreement_where_sure"], ".2%").replace("%", " %"),
            figure(figures.get("latency_ms"), ".3g"),
            figure(figures.get("latency_ratio"), ".2f"),
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
            report.share_bar(iou_before(first, name)),
            *(
                signed_change(figures["iou_loss_points"][name], content["budget_points"])
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
