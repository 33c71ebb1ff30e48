"""The part of ``parity.html`` about layers in floating point: which, why, and what was tried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cclseg import report

from .page_figures import figure, signed_loss

_LAYERS_SHOWN = 16


def layer_section(content: Mapping[str, Any], kept: Sequence[str]) -> Iterator[report.Html]:
    """Yields the section about layers in floating point, where there are any or were looked for.

    Args:
        content: Content of ``parity.json``.
        kept: Nodes in floating point of the file that the page is about.
    """
    search = content["search"]
    if search is None:
        if kept:
            text = "Asked for with --keep-float: " + ", ".join(kept) + "."
            yield report.section("Layers in floating point", report.element("p", text))
        return
    trials = [
        (
            f"{len(trial['kept'])} layers",
            signed_loss(trial["loss_points"], trial["place"], budget=content["budget_points"]),
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
            "shrinks or grows over all images were right before, whichever is more. It must be "
            "within the budget, so that the outcome does not hang on a few images.",
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
        "unlabelled tiles over the time that it loses in floating point, and few are kept, those "
        "that lose little time first."
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
            *([figure(layer["miou_cost_points"], "+.2f")] if has_costs else []),
            report.element("b", "float") if layer["kept_float"] else "INT8",
        )
        for layer in shown
    ]
    columns = (
        "layer", "node", "operator", "signal to noise", "share of the error",
        *(["mIoU cost alone"] if has_costs else []), "computed in",
    )  # fmt: skip
    return report.table(columns, rows)
