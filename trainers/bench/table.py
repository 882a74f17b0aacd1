"""The numbers of `darkroom bench` as a table for people."""

TITLE, WIDTH = 24, 12  # characters of a row's title and of each number


def table(result: dict) -> str:
    """What `run.bench` returned, some twenty lines."""
    where = f"{result['precision']}, {result['device']}, {result['threads']} threads"
    parts = f" (Darkroom's in {result['parts']} parts)" if result["parts"] > 1 else ""
    setup = f"{result['resolution']} px, batch {result['batch_size']}{parts}, {where}"
    lines = [f"{result['base']}, {setup}", *result["remarks"], f"{result['adapter']}", ""]
    if "bare" in result["loops"] and result["bare_precision"] != result["precision"]:
        lines.insert(1, f"The bare loop computes in {result['bare_precision']}.")
    loops = result["loops"]
    lines.append(" " * TITLE + "".join(f"{name:>{WIDTH}}" for name in loops))
    for title, value in _rows(loops):
        lines.append(f"{title:<{TITLE}}" + "".join(f"{value(loop):>{WIDTH}}" for loop in loops.values()))
    if "compiled" in loops:
        calls = f"{loops['compiled']['graph_calls']} calls of compiled graphs, forward and backward"
        lines += ["", f"compiled: {calls}. Inside them only what they take from libraries is"]
        lines.append("counted as a dispatch, not the loops that were fused; their memory is not seen.")
    least = result["floor_gflop"]
    lines += ["", f"Least GFLOP for the base: {least['forward']} forward, {least['backward']} backward."]
    if result["ratios"]:
        wall, processor = result["ratios"]["wall"], result["ratios"]["processor"]
        lines.append(
            f"Darkroom's step takes {wall:.3f} of the bare loop's time (median of pairs); {processor:.3f} of its"
        )
        lines.append("processor time, which other programs do not lengthen.")
    if result["recorded_ratios"]:
        lines.append(
            f"As CUDA graphs it takes {result['recorded_ratios']['wall']:.3f} of it; what is in them is not counted."
        )
    if result["process_peak_gb"] is not None:
        lines.append(f"Peak memory of the whole measurement {result['process_peak_gb']} GB.")
    for name in ("cold", "warm") if "start" in result else ():
        sitting = result["start"][name]
        preview = f", preview {sitting['preview_seconds']} s" if sitting["preview_seconds"] else ""
        lines.append(
            f"From start to first step, {result['start']['pictures']} pictures, {name} cache: "
            f"{sitting['seconds_to_first_step']} s{preview}."
        )
        pace, peak = sitting["seconds_per_step"], sitting["peak_memory_gb"]
        lines.append(f"Then steps 11 to 20 take {pace:.3g} s each; peak memory {peak} GB.")
    return "\n".join(lines)


def _rows(loops: dict) -> list:
    """(title, what to show of a loop)."""
    rows = [("adapted layers", lambda loop: loop["modules"])]
    for phase in ("forward", "backward", "optimizer", "total"):
        rows.append((f"dispatches {phase}", lambda loop, phase=phase: loop["dispatches"].get(phase, 0)))
    rows.append(("host syncs", lambda loop: loop["host_syncs"]))
    for phase in ("forward", "backward", "total"):
        rows.append((f"GFLOP {phase}", lambda loop, phase=phase: f"{loop['gflop'][phase]:.1f}"))
    for part in ("weights", "adapter", "optimizer", "activations", "workspace", "peak"):
        rows.append((f"GB {part}", lambda loop, part=part: _gb(loop["memory_gb"], part)))
    if all("seconds" in loop for loop in loops.values()):
        for key in ("median", "fastest", "slowest", "processor"):
            rows.append((f"seconds {key}", lambda loop, key=key: f"{loop['seconds'][key]:.4f}"))
    return rows


def _gb(memory: dict | None, part: str) -> str:
    return f"{memory[part]:.3f}" if memory else "-"
