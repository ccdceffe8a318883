"""The task `export`: a trained model into a folder that swaps without torch."""

from __future__ import annotations

import shutil
from typing import Any

from lib_vitface import media
from lib_vitface.errors import CheckpointError, InputError
from lib_vitface.provenance import audit
from lib_vitface.provenance import consent as records
from lib_vitface.tasks.settings import ExportOptions
from lib_vitface.tasks.steps import model_record
from lib_vitface.types import Host


def export(options: ExportOptions, host: Host) -> dict[str, Any]:
    """Export a model whose consent record holds; the record goes along, and swapping asks for it as before."""
    from lib_vitface.models.checkpoint import INDEX, open_model
    from lib_vitface.swap.export import FILE, Exporting, export_model

    checkpoint = open_model(options.model)
    record = model_record(options.model, checkpoint.consent_id, host.workspace)
    if "exported" in checkpoint.notes:
        raise CheckpointError(f"{options.model} was exported itself; name the model that was trained.")
    output = options.output
    if output.exists():
        ours = (output / INDEX).is_file() and "exported" in open_model(output).notes
        if not options.overwrite or not ours:
            hint = "use --overwrite" if ours else "it is no exported model and is not touched"
            raise InputError(f"{output}: is there already; name another folder ({hint}).")
    media.check_place(output)
    how = Exporting(options.weights, options.opset, options.quantize)
    beside = output.with_name(f".{output.name}.exported")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        measured = export_model(checkpoint, beside, how, host.tick)
        records.save_record(record, beside / records.FILE)
        shutil.rmtree(output, ignore_errors=True)
        beside.replace(output)
        audit.note(
            host.workspace, "exported", record=record.id, model=checkpoint.model_id, folder=str(output.resolve())
        )
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return {
        "output": str(output),
        "network": str(output / FILE),
        "opset": options.opset,
        "quantized": options.quantize,
        "model_id": checkpoint.model_id,
        "consent": checkpoint.consent_id,
        **measured,
    }
