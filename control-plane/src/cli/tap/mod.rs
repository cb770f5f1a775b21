//! `pillion tap`: requests as they end.

mod events;
mod line;

use std::{
    io::{self, Write as _},
    time::Duration,
};

use clap::{Args, ValueEnum};
use pillion_api::tap::{Party, RATES, Status};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, timeout},
};

use self::events::{Event, Reader};
use super::{Client, Failure, print};
use crate::{
    resource::duration,
    tap::{Resource, TapDropped, TapEnded, TapEvent, TapStatus},
    web::Problem,
};

/// Which requests, told by whose sidecars.
#[derive(Debug, Args)]
pub(super) struct TapArgs {
    /// Whose sidecars tell: svc/NAME.NAMESPACE, workload/NAME, ns/NAME, or mesh
    #[arg(value_parser = parse::<Resource>)]
    resource: Resource,
    /// Of a service: the sidecars of those who call it tell instead, who see the network's share and what their own sidecars refuse
    #[arg(long)]
    callers: bool,
    /// Only requests that arrive at these workloads, or only those that they send
    #[arg(long, value_enum)]
    direction: Option<Direction>,
    /// Only of this method; may be given several times
    #[arg(long = "method", value_name = "METHOD")]
    methods: Vec<String>,
    /// Only what begins with this path
    #[arg(long, value_name = "PREFIX")]
    path: Option<String>,
    /// Only what ended so: 5xx, 503, grpc-14, refused, cancelled; may be given several times
    #[arg(long = "status", value_name = "STATUS", value_parser = parse::<Status>)]
    statuses: Vec<Status>,
    /// Only from this caller: svc/NAME.NAMESPACE, workload/NAME or ns/NAME
    #[arg(long, value_name = "WHO", value_parser = parse::<Party>)]
    from: Option<Party>,
    /// Only to this service, or served by it or by this workload
    #[arg(long, value_name = "WHO", value_parser = parse::<Party>)]
    to: Option<Party>,
    /// Only what took as long, such as 250ms
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    min_duration: Option<String>,
    /// Only what failed or was refused
    #[arg(long)]
    errors: bool,
    /// Requests each second, at most; what is beyond is counted
    #[arg(long, value_name = "N", default_value_t = RATES.0, value_parser = clap::value_parser!(u32).range(1..=i64::from(RATES.1)))]
    max_rate: u32,
    /// End after so many requests
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// How
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Direction {
    Inbound,
    Outbound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A line each, for people
    Text,
    /// The same, with identity, route, attempts and headers
    Wide,
    /// An object each, on a line of its own
    Json,
}

fn parse<T: std::str::FromStr<Err = String>>(text: &str) -> Result<T, String> {
    text.parse()
}

fn parse_duration(text: &str) -> Result<String, String> {
    duration::parse(text).map(|_| text.to_owned())
}

/// The server says something at least every 15 s.
const SILENCE: Duration = Duration::from_secs(45);
/// Without a request for so long, it is said how it goes.
const QUIET: Duration = Duration::from_secs(10);
/// Between words on what is left out.
const LEFT_OUT: Duration = Duration::from_secs(5);

impl TapArgs {
    fn parameters(&self) -> Vec<(&'static str, String)> {
        let mut parameters =
            vec![("resource", self.resource.to_string()), ("maxRate", self.max_rate.to_string())];
        let mut add = |name, value: Option<String>| parameters.extend(value.map(|value| (name, value)));
        add("seenBy", self.callers.then(|| "callers".to_owned()));
        add("direction", self.direction.map(|direction| format!("{direction:?}").to_lowercase()));
        for method in &self.methods {
            add("method", Some(method.to_ascii_uppercase()));
        }
        add("path", self.path.clone());
        for status in &self.statuses {
            add("status", Some(status.to_string()));
        }
        add("from", self.from.as_ref().map(ToString::to_string));
        add("to", self.to.as_ref().map(ToString::to_string));
        add("minDuration", self.min_duration.clone());
        add("errors", self.errors.then(|| "true".to_owned()));
        parameters
    }

    /// Which requests, as they were asked for; `None`: all.
    fn filters(&self) -> Option<String> {
        let flag = |name: &str| {
            Some(match name {
                "direction" | "method" | "path" | "status" | "from" | "to" => format!("--{name}"),
                "minDuration" => "--min-duration".to_owned(),
                _ => return None,
            })
        };
        let mut words = Vec::new();
        for (name, value) in self.parameters() {
            words.extend(flag(name).map(|flag| format!("{flag} {value}")));
        }
        words.extend(self.errors.then(|| "--errors".to_owned()));
        (!words.is_empty()).then(|| words.join(" "))
    }
}

pub(super) async fn run(args: &TapArgs, client: &Client) -> Result<(), Failure> {
    let signals = |error: io::Error| Failure::Local(format!("cannot watch signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let mut shown = Shown::new(args);
    let watching = watch(args, client, &mut shown);
    let ended = tokio::select! {
        ended = watching => ended,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    shown.conclude();
    ended
}

async fn watch(args: &TapArgs, client: &Client, shown: &mut Shown<'_>) -> Result<(), Failure> {
    let path = ["v1", "mesh", "tap"].map(str::to_owned);
    let parameters = args.parameters();
    let parameters: Vec<(&str, &str)> =
        parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut stream = client.follow(&path, &parameters).await.map_err(older)?;
    let (mut reader, mut heard) = (Reader::default(), Instant::now());
    loop {
        let Ok(chunk) = timeout(QUIET, stream.chunk()).await else {
            if heard.elapsed() > SILENCE {
                let silence = humantime::format_duration(SILENCE);
                return Err(client.silent(&format!("nothing was heard for {silence}")));
            }
            shown.quiet();
            continue;
        };
        heard = Instant::now();
        shown.quiet();
        let chunk = chunk.map_err(|error| client.silent(&error.to_string()))?;
        let Some(chunk) = chunk else { return Err(client.silent("the stream was cut")) };
        for event in reader.take(&chunk) {
            if shown.take(&event)? {
                return Ok(());
            }
        }
    }
}

/// An older server has nothing there.
fn older(failure: Failure) -> Failure {
    match failure {
        Failure::Refused(problem) if is_nothing_there(&problem) => {
            Failure::Local("this control plane is of a release that cannot show live requests".to_owned())
        }
        other => other,
    }
}

fn is_nothing_there(problem: &Problem) -> bool {
    problem.status == 404 && problem.detail.contains("/v1/mesh/tap")
}

/// What has been shown.
struct Shown<'a> {
    args: &'a TapArgs,
    began: Instant,
    requests: u64,
    status: TapStatus,
    notes: Vec<String>,
    /// What was said of what is left out, and when.
    left_out: (TapDropped, Option<Instant>),
    introduced: bool,
    quiet: bool,
}

impl<'a> Shown<'a> {
    fn new(args: &'a TapArgs) -> Self {
        Self {
            args,
            began: Instant::now(),
            requests: 0,
            status: TapStatus::default(),
            notes: Vec::new(),
            left_out: (TapDropped::default(), None),
            introduced: false,
            quiet: false,
        }
    }

    /// Shows an event; tells whether it is enough.
    fn take(&mut self, event: &Event) -> Result<bool, Failure> {
        let strange =
            |error: serde_json::Error| Failure::Local(format!("the server speaks strangely: {error}"));
        match event.name.as_str() {
            "request" => {
                self.requests += 1;
                match self.args.output {
                    Output::Json => print(&format!("{}\n", event.data))?,
                    output => {
                        let request: TapEvent = serde_json::from_str(&event.data).map_err(strange)?;
                        print(&line::render(&request, output == Output::Wide))?;
                    }
                }
                Ok(self.args.limit.is_some_and(|limit| self.requests >= limit))
            }
            "status" => {
                self.status = serde_json::from_str(&event.data).map_err(strange)?;
                // What has passed meanwhile is said again when it comes again.
                let said = std::mem::replace(&mut self.notes, self.status.notes.clone());
                for note in self.notes.iter().filter(|note| !said.contains(note)) {
                    say(note);
                }
                self.introduce();
                if self.left_out.1.is_none_or(|last| last.elapsed() >= LEFT_OUT) {
                    self.say_left_out();
                }
                Ok(false)
            }
            "ended" => {
                let ended: TapEnded = serde_json::from_str(&event.data).map_err(strange)?;
                Err(Failure::Local(format!("the server has ended it: {}", ended.reason)))
            }
            // Of a later release.
            _ => Ok(false),
        }
    }

    fn say_left_out(&mut self) {
        if self.status.dropped == self.left_out.0 {
            return;
        }
        self.left_out = (self.status.dropped, Some(Instant::now()));
        say(&line::left_out(self.status.dropped));
    }

    /// All who are asked have answered: silence means from now on that nothing has fit.
    fn introduce(&mut self) {
        let TapStatus { listening, waiting, .. } = self.status;
        if !self.introduced && waiting == 0 && listening > 0 {
            self.introduced = true;
            say(&format!("{}; what fits is shown as it ends", tell(listening)));
        }
    }

    /// Nothing has come for a while.
    fn quiet(&mut self) {
        let listening = self.status.listening;
        if !self.quiet && self.requests == 0 && listening > 0 && self.began.elapsed() >= QUIET {
            self.quiet = true;
            let passed_by = passed_by(self.status.passed_by);
            let fit =
                self.args.filters().map_or_else(|| "come".to_owned(), |filters| format!("fit {filters}"));
            say(&format!("no request has {fit} so far{passed_by}; {}", tell(listening)));
        }
    }

    fn conclude(&mut self) {
        self.say_left_out();
        if self.introduced {
            let requests = if self.requests == 1 { "request" } else { "requests" };
            let fit = self.args.filters().map(|filters| format!(" fit {filters}")).unwrap_or_default();
            let passed_by = passed_by(self.status.passed_by);
            say(&format!(
                "{} {requests} in {}s{fit}{passed_by}",
                self.requests,
                self.began.elapsed().as_secs()
            ));
        }
    }
}

/// Nothing where nothing has, or sidecars are of a release that does not count it.
fn passed_by(requests: u64) -> String {
    if requests == 0 { String::new() } else { format!("; {requests} passed by") }
}

fn tell(sidecars: usize) -> String {
    if sidecars == 1 { "1 sidecar tells".to_owned() } else { format!("{sidecars} sidecars tell") }
}

/// To people, beside what programs read.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: TapArgs,
    }

    #[test]
    fn what_is_asked_for_is_said_as_it_was_asked_for() {
        for (line, expected) in [
            ("tap mesh --callers --limit 3", None),
            (
                "tap svc/pay.demo --method get --path /pay --status 5xx --status refused --direction inbound",
                Some("--direction inbound --method GET --path /pay --status 5xx --status refused"),
            ),
            (
                "tap mesh --from ns/demo --min-duration 250ms --errors",
                Some("--from ns/demo --min-duration 250ms --errors"),
            ),
        ] {
            let args = Line::parse_from(line.split(' ')).args;
            assert_eq!(args.filters().as_deref(), expected, "{line}");
        }
        assert_eq!((passed_by(0), passed_by(7)), (String::new(), "; 7 passed by".to_owned()));
    }
}
