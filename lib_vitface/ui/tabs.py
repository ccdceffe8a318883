"""All tabs, for whichever host shows them."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_vitface import __version__
from lib_vitface.ui import check_tab, clone_tab, dataset_tab, dialect, evaluate_tab, markup, swap_tab, train_tab
from lib_vitface.ui.panel import Panel, queue_table
from lib_vitface.ui.runner import Runner
from lib_vitface.ui.studio import Studio

NOTE = (
    "For your own face, or that of an adult who agreed. Everything that is written is marked as synthetic, in its pixels and "
    "in its file."
)


def build(runner: Runner, studio: Studio, title: str = "ViTFace") -> gr.Blocks:
    """The page (or, in the WebUI, the inside of the top tab)."""
    extra: dict[str, Any] = {"analytics_enabled": False}
    with gr.Blocks(title=title, **extra) as blocks:
        gr.HTML(f'<div class="vitface-note">{NOTE} <span>{__version__}</span></div>', elem_id="vitface-note")
        with gr.Tabs(elem_id="vitface-tabs"):
            with gr.Tab("Clone", elem_id="vitface-tab-clone") as clone:
                clone_panel = clone_tab.build(runner)
            with gr.Tab("Dataset", elem_id="vitface-tab-dataset") as dataset:
                dataset_panel, listed, renewed = dataset_tab.build(runner)
            with gr.Tab("Train", elem_id="vitface-tab-train") as train:
                train_panels = train_tab.build(runner)
            with gr.Tab("Swap", elem_id="vitface-tab-swap") as swap:
                swap_panel, queue = swap_tab.build(runner, studio)
            with gr.Tab("Check", elem_id="vitface-tab-check"):
                check_tab.build(runner)
            with gr.Tab("Evaluate", elem_id="vitface-tab-evaluate") as evaluate:
                evaluate_panels = evaluate_tab.build(runner)
        pairs = (
            (clone, clone_panel),
            (dataset, dataset_panel),
            *((train, panel) for panel in train_panels),
            (swap, swap_panel),
            *((evaluate, panel) for panel in evaluate_panels),
        )
        for tab, panel in pairs:
            _renew(tab, panel)
        dialect.on(dataset.select, renewed, [], listed, quiet=True)
        dialect.on(swap.select, lambda: queue_table(runner), [], [queue], quiet=True)
        # a page that is opened while something runs takes up the newest jobs
        dialect.on(
            blocks.load,
            lambda: [u for _, p in pairs for u in p.refreshed()],
            [],
            [c for _, p in pairs for c in (p.job, *p.shown)],
            quiet=True,
        )
    for block in blocks.blocks.values():
        # the WebUI keeps start values by label, so “Quality” of one form would become that of another
        block.do_not_save_to_config = True
    return blocks


def _renew(tab: Any, panel: Panel) -> None:
    """Lists of models, facesets and jobs are read again when a tab is opened."""
    lists = panel.form.lists
    if lists:
        dialect.on(tab.select, panel.form.refreshed, [], lists, quiet=True)


__all__ = ["NOTE", "build", "markup"]
