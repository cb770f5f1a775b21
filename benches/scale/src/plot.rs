//! The figures over the number of subscribers or sidecars, as SVG.

use std::fmt::Write as _;

use crate::{report::Growth, step::Step};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 44.0;
/// Lines across, at most.
const LINES: f64 = 5.0;
const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#1f2937}.title{font-size:15px;font-weight:600}.note{fill:#6b7280}\
                     .grid{stroke:#9ca3af;stroke-width:.5}.fit{stroke:#b45309;stroke-width:1.5;stroke-dasharray:6 4;fill:none}\
                     .range{stroke:#0f766e;stroke-width:1.5}.line{stroke:#0f766e;stroke-width:1;fill:none}circle{fill:#0f766e}\
                     @media(prefers-color-scheme:dark){text{fill:#e5e7eb}.note{fill:#9ca3af}}";

/// A point with its range.
struct Point {
    x: f64,
    y: f64,
    least: f64,
    most: f64,
}

/// Every plot by its file's name.
pub(crate) fn all(steps: &[&Step], growth: Option<Growth>) -> Vec<(&'static str, String)> {
    let cost = steps.iter().map(|step| {
        let cost = &step.changes.cost;
        let (least, most) = range(&cost.rounds_ms);
        Point { x: cost.subscribers as f64, y: cost.cpu_ms, least, most }
    });
    let cost: Vec<Point> = cost.collect();
    let note = growth.map_or(String::new(), |growth| {
        format!(
            "median and range of rounds; dashed: {:.2} ms + {:.0} µs for each subscriber",
            growth.base_ms, growth.per_subscriber_us
        )
    });
    let fit = growth.map(|growth| (growth.base_ms, growth.per_subscriber_us / 1000.0));
    let plain = |y: fn(&Step) -> f64| -> Vec<Point> {
        steps
            .iter()
            .map(|step| Point { x: step.sidecars as f64, y: y(step), least: y(step), most: y(step) })
            .collect()
    };
    let memory = plain(|step| step.resident_mb);
    let latency = plain(|step| step.changes.health.p99_ms);
    vec![
        (
            "scale-cpu.svg",
            draw(
                "CPU of the control plane for one change, ms",
                &note,
                "subscribers of the service",
                &cost,
                fit,
            ),
        ),
        (
            "scale-memory.svg",
            draw(
                "Resident memory of the control plane, MB",
                "with all streams open, after all changes",
                "sidecars",
                &memory,
                None,
            ),
        ),
        (
            "scale-latency.svg",
            draw("From a change of health to the last subscriber, p99, ms", "", "sidecars", &latency, None),
        ),
    ]
}

fn draw(title: &str, note: &str, axis: &str, points: &[Point], fit: Option<(f64, f64)>) -> String {
    let right = points.iter().map(|point| point.x).fold(1.0, f64::max);
    let step = nice(points.iter().map(|point| point.most).fold(0.001, f64::max) / LINES);
    let top = (points.iter().map(|point| point.most).fold(0.001, f64::max) / step).ceil() * step;
    let x = |value: f64| LEFT + value / right * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value.max(0.0) / top * (HEIGHT - TOP - BOTTOM);
    let mut body = String::new();
    let mut add =
        |piece: std::fmt::Arguments<'_>| body.write_fmt(piece).expect("a String takes what is written");
    let mut value = 0.0;
    while value <= top * 1.001 {
        let (at, decimals) = (y(value), if step < 1.0 { 2 } else { 0 });
        add(format_args!(
            r#"<line class="grid" x1="{LEFT}" x2="{}" y1="{at:.1}" y2="{at:.1}"/>"#,
            WIDTH - RIGHT
        ));
        add(format_args!(
            r#"<text x="{}" y="{:.1}" text-anchor="end">{value:.decimals$}</text>"#,
            LEFT - 6.0,
            at + 4.0
        ));
        value += step;
    }
    if let Some((base, slope)) = fit {
        let (start, end) = (y(base), y(base + slope * right));
        add(format_args!(r#"<path class="fit" d="M{:.1} {start:.1}L{:.1} {end:.1}"/>"#, x(0.0), x(right)));
    } else {
        let line: Vec<String> =
            points.iter().map(|point| format!("{:.1} {:.1}", x(point.x), y(point.y))).collect();
        add(format_args!(r#"<path class="line" d="M{}"/>"#, line.join("L")));
    }
    let mut labelled = f64::NEG_INFINITY;
    for point in points {
        let at = x(point.x);
        add(format_args!(
            r#"<line class="range" x1="{at:.1}" x2="{at:.1}" y1="{:.1}" y2="{:.1}"/>"#,
            y(point.least),
            y(point.most)
        ));
        add(format_args!(r#"<circle cx="{at:.1}" cy="{:.1}" r="3.5"/>"#, y(point.y)));
        // Those that stand too close share one.
        if at - labelled > 28.0 {
            let under = HEIGHT - BOTTOM + 16.0;
            add(format_args!(r#"<text x="{at:.1}" y="{under}" text-anchor="middle">{}</text>"#, point.x));
            labelled = at;
        }
    }
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{title}"><style>{STYLE}</style><text class="title" x="8" y="20">{title}</text><text class="note" x="8" y="38">{note}</text>{body}<text class="note" x="{middle}" y="{bottom}" text-anchor="middle">{axis}</text></svg>
"#,
        middle = (LEFT + WIDTH - RIGHT) / 2.0,
        bottom = HEIGHT - 8.0,
    )
}

/// 1, 2 or 5 times a power of ten, not below `least`.
fn nice(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= least)
        .unwrap_or(power * 10.0)
}

fn range(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
        (least.min(*value), most.max(*value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stand_at_round_numbers() {
        for (least, expected) in [(0.9, 1.0), (1.1, 2.0), (3.0, 5.0), (70.0, 100.0), (0.03, 0.05)] {
            assert!((nice(least) - expected).abs() < 1e-9, "{least}: {}", nice(least));
        }
    }
}
