//! `pillion top`: the same figures as `pillion stat`, kept fresh in place.

mod terminal;

use std::{cmp::Ordering, time::Duration};

use clap::{Args, ValueEnum};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use self::terminal::Screen;
use super::{
    Client, Failure, print,
    stat::{self, Wanted, What, Window, parse_window},
};
use crate::{
    mesh_api::view::{StatRow, StatView},
    resource::duration,
};

/// Show live how services, workloads or edges fare.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    wanted: Wanted,
    /// Over the last so long, up to 30m
    #[arg(long, default_value = "10s", value_parser = parse_window)]
    window: Window,
    /// By what
    #[arg(long, value_enum, default_value_t = Column::Rps)]
    sort: Column,
    /// How often, 200ms to 1m
    #[arg(long, default_value = "1s", value_parser = parse_interval)]
    interval: Duration,
    /// Print one table and end, as where standard output is no terminal
    #[arg(long)]
    once: bool,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = duration::parse(text)?;
    if (Duration::from_millis(200)..=Duration::from_secs(60)).contains(&interval) {
        Ok(interval)
    } else {
        Err("must be from 200ms to 1m".to_owned())
    }
}

/// By what rows are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Column {
    Name,
    /// The worst first
    Success,
    Rps,
    P50,
    P99,
}

impl Column {
    fn of_key(key: u8) -> Option<Self> {
        match key {
            b'n' => Some(Self::Name),
            b's' => Some(Self::Success),
            b'r' => Some(Self::Rps),
            b'5' => Some(Self::P50),
            b'9' => Some(Self::P99),
            _ => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Success => "success, the worst first",
            Self::Rps => "requests",
            Self::P50 => "p50",
            Self::P99 => "p99",
        }
    }
}

/// What is shown now.
struct Shown {
    wanted: Wanted,
    window: Window,
    sort: Column,
    reversed: bool,
    view: Option<StatView>,
    /// Why it is not fresh.
    fault: Option<String>,
}

/// What a key means.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Quit,
    /// The same figures, shown otherwise.
    Show,
    /// Other figures.
    Ask,
    Nothing,
}

pub(super) async fn run(args: &TopArgs, client: &Client) -> Result<(), Failure> {
    let mut shown = Shown {
        wanted: args.wanted.clone(),
        window: args.window,
        sort: args.sort,
        reversed: false,
        view: None,
        fault: None,
    };
    // Before the terminal is taken: who cannot ask at all is told so plainly.
    shown.view = Some(stat::read(shown.wanted.figures(client, shown.window).await?)?);
    if args.once || !Screen::is_possible() {
        return print(&shown.table());
    }
    let mut ending =
        Ending::new().map_err(|error| Failure::Local(format!("cannot watch signals: {error}")))?;
    let screen = Screen::take().map_err(Failure::Output)?;
    let mut keys = screen.keys();
    let mut ticks = tokio::time::interval(args.interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        screen.show(&shown.page()).map_err(Failure::Output)?;
        let step = tokio::select! {
            Some(key) = next(&mut keys) => shown.take_key(key),
            step = ending.next() => step,
            _ = ticks.tick() => Step::Ask,
        };
        match step {
            Step::Quit => return Ok(()),
            Step::Show | Step::Nothing => {}
            Step::Ask => {
                // A server that hangs must not keep anybody from leaving.
                tokio::select! {
                    answer = shown.wanted.figures(client, shown.window) => shown.take_answer(answer.and_then(stat::read)),
                    Some(key) = next(&mut keys) => if shown.take_key(key) == Step::Quit { return Ok(()) },
                    step = ending.next() => if step == Step::Quit { return Ok(()) },
                }
            }
        }
    }
}

/// The next key; never, where no keys can come (any more).
async fn next(keys: &mut mpsc::Receiver<u8>) -> Option<u8> {
    match keys.recv().await {
        Some(key) => Some(key),
        None => std::future::pending().await,
    }
}

/// Signals that end it, and the one that tells of another window.
struct Ending {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    window: Signal,
}

impl Ending {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            window: signal(SignalKind::window_change())?,
        })
    }

    async fn next(&mut self) -> Step {
        tokio::select! {
            _ = self.interrupt.recv() => Step::Quit,
            _ = self.terminate.recv() => Step::Quit,
            _ = self.hangup.recv() => Step::Quit,
            _ = self.window.recv() => Step::Show,
        }
    }
}

impl Shown {
    fn take_key(&mut self, key: u8) -> Step {
        const CTRL_C: u8 = 3;
        const CTRL_D: u8 = 4;
        match key {
            b'q' | b'Q' | CTRL_C | CTRL_D => Step::Quit,
            b'\t' => {
                self.wanted.subject.what = match self.wanted.subject.what {
                    What::Services if self.wanted.is_narrowed() => What::Edges,
                    What::Services => What::Workloads,
                    What::Workloads => What::Edges,
                    What::Edges => What::Services,
                };
                self.view = None;
                Step::Ask
            }
            b'-' => {
                self.reversed = !self.reversed;
                Step::Show
            }
            key => match Column::of_key(key) {
                Some(column) => {
                    (self.sort, self.reversed) = (column, false);
                    Step::Show
                }
                None => Step::Nothing,
            },
        }
    }

    fn take_answer(&mut self, answer: Result<StatView, Failure>) {
        match answer {
            Ok(view) => (self.view, self.fault) = (Some(view), None),
            Err(failure) => {
                let text = failure.to_string();
                self.fault = Some(text.lines().next().unwrap_or_default().to_owned());
            }
        }
    }

    fn table(&mut self) -> String {
        match &mut self.view {
            None => String::new(),
            Some(view) if view.rows.is_empty() => stat::nothing(view.kind),
            Some(view) => {
                sort(&mut view.rows, self.sort, self.reversed);
                stat::render(view)
            }
        }
    }

    fn page(&mut self) -> String {
        let order = if self.reversed { ", reversed" } else { "" };
        let title = format!(
            "pillion top {} · last {} s · by {}{order}",
            self.wanted.subject.what.word(),
            self.window.0,
            self.sort.word()
        );
        let below = match &self.fault {
            Some(fault) => format!("NOT FRESH: {fault}"),
            None => {
                "q quit · tab services, workloads, edges · sort: n name, s success, r requests, 5 p50, 9 p99, - reverse"
                    .to_owned()
            }
        };
        format!("{title}\n{below}\n{}", self.table())
    }
}

fn sort(rows: &mut [StatRow], by: Column, reversed: bool) {
    // What was not measured goes last, however it is sorted.
    let figure = |one: Option<f64>, other: Option<f64>, falling: bool| match (one, other) {
        (Some(one), Some(other)) => {
            let order = one.total_cmp(&other);
            if falling != reversed { order.reverse() } else { order }
        }
        (one, other) => other.is_some().cmp(&one.is_some()),
    };
    let name = |row: &StatRow| (row.name.clone(), row.from.clone(), row.backend.clone());
    rows.sort_by(|one, other| {
        let by_figure = match by {
            Column::Name => Ordering::Equal,
            Column::Success => figure(one.success_rate, other.success_rate, false),
            Column::Rps => figure(Some(one.rps), Some(other.rps), true),
            Column::P50 => figure(one.p50_ms, other.p50_ms, true),
            Column::P99 => figure(one.p99_ms, other.p99_ms, true),
        };
        let by_name = name(one).cmp(&name(other));
        by_figure.then(if by == Column::Name && reversed { by_name.reverse() } else { by_name })
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, rps: f64, success_rate: Option<f64>) -> StatRow {
        StatRow { name: name.into(), rps, success_rate, ..StatRow::default() }
    }

    #[test]
    fn rows_are_sorted_by_the_column_asked_for_and_what_was_not_measured_goes_last() {
        let mut rows = [row("a", 1.0, None), row("b", 3.0, Some(1.0)), row("c", 2.0, Some(0.5))];
        let mut names = |by, reversed| {
            sort(&mut rows, by, reversed);
            rows.iter().map(|row| row.name.as_str()).collect::<String>()
        };
        assert_eq!(names(Column::Name, false), "abc");
        assert_eq!(names(Column::Name, true), "cba");
        assert_eq!(names(Column::Rps, false), "bca");
        assert_eq!(names(Column::Rps, true), "acb");
        assert_eq!(names(Column::Success, false), "cba");
        assert_eq!(names(Column::Success, true), "bca");
    }
}
