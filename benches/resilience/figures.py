"""What a run says. Everything is seen from outside, by the caller and by the replicas, and so alike for every mesh."""

import math

from stories import RATE, REPLICAS, Story, Told

# A replica is left alone from when it gets less than this part of its fair share for a second.
LEFT_ALONE = 0.2
# The service is well again from when no more than this part of requests fails for a second.
WELL = 0.01


def of(story: Story, told: Told) -> dict[str, float]:
    before = [request for request in told.seen if 0 <= request[0] < told.broke]
    during = [request for request in told.seen if told.broke <= request[0] < told.mended]
    found = {
        "p50": percentile(during, 0.5),
        "p99": percentile(during, 0.99),
        "p99 well": percentile(before, 0.99),
        "errors": errors(during),
        "offered": most_offered(told),
    }
    if story.which == "0":
        found["left alone"] = left_alone(told)
    if story.again:
        found["well again"] = well_again(told)
    return found


def faults(told: Told) -> list[str]:
    """What no mesh may do: give somebody another's answer, or an answer that no replica gave."""
    strange = [f"{outcome} at {due:.2f} s" for due, _, outcome in told.seen if outcome == "another's answer"]
    good = sum(outcome == 200 for _, _, outcome in told.seen)
    if good > sum(map(len, told.called)):
        strange.append(f"{good} good answers from {sum(map(len, told.called))} calls")
    return strange


def percentile(seen: list, share: float) -> float:
    """Milliseconds; of all requests, also those that failed."""
    took = sorted(took for _, took, _ in seen)
    return took[max(0, math.ceil(len(took) * share) - 1)] * 1e3 if took else math.nan


def errors(seen: list) -> float:
    return sum(outcome != 200 for _, _, outcome in seen) / max(1, len(seen))


def most_offered(told: Told) -> float:
    """Calls of the replicas in the fullest second while it is wrong, as a multiple of what was asked."""
    calls = sorted(at for replica in told.called for at in replica if told.broke <= at < told.mended)
    most, first = 0, 0
    for last, at in enumerate(calls):
        while calls[first] <= at - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most / RATE


def left_alone(told: Told) -> float:
    """Seconds from when the first replica goes wrong; infinite: never."""
    calls = told.called[0]
    fair = RATE / REPLICAS
    for step in range(int((told.mended - told.broke - 1.0) / 0.05)):
        start = told.broke + step * 0.05
        if sum(start <= at < start + 1.0 for at in calls) < LEFT_ALONE * fair:
            return step * 0.05
    return math.inf


def well_again(told: Told) -> float:
    """Seconds from when the replicas are well; infinite: not while anybody looked."""
    last = max(due for due, _, _ in told.seen)
    for step in range(int((last - told.mended - 1.0) / 0.05)):
        start = told.mended + step * 0.05
        if errors([request for request in told.seen if start <= request[0] < start + 1.0]) <= WELL:
            return step * 0.05
    return math.inf


COLUMNS = ["p50", "p99", "p99 well", "errors", "offered", "left alone", "well again"]


def table(results: dict[str, dict[str, list[dict[str, float]]]]) -> str:
    """Least and most of all rounds, and with three or more the middle."""
    heads = ["story", "mesh", "p50, ms", "p99, ms", "p99 / when well", "errors", "most offered"]
    heads += ["left alone after", "well again after"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for story, meshes in results.items():
        for mesh, rounds in meshes.items():
            ratio = [found["p99"] / found["p99 well"] for found in rounds]
            columns = {name: [found[name] for found in rounds if name in found] for name in COLUMNS}
            cells = [
                text(columns["p50"], "{:.0f}"), text(columns["p99"], "{:.0f}"), text(ratio, "{:.2f}"),
                text([100 * value for value in columns["errors"]], "{:.2f} %"), text(columns["offered"], "{:.2f}×"),
                text(columns["left alone"], "{:.2f} s"), text(columns["well again"], "{:.2f} s"),
            ]  # fmt: skip
            lines.append(f"| {story} | {mesh} | {' | '.join(cells)} |")
    return "\n".join(lines)


def text(values: list[float], form: str) -> str:
    if not values:
        return ""
    shown = [form.format(value) if math.isfinite(value) else "never" for value in sorted(values)]
    if shown[0] == shown[-1]:
        return shown[0]
    between = f"{shown[0]} to {shown[-1]}"
    # Of two there is no middle.
    return between if len(shown) < 3 else f"{shown[len(shown) // 2]} ({between})"
