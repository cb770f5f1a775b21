//! A busy mesh to look at: each sidecar counts requests that nobody made, with the sidecar's own code, and tells them over its real
//! stream. For the dashboard's tests, and for the memory that its figures take.

use std::{path::Path, process::ExitCode, rc::Rc, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use http::StatusCode;
use pillion_api::hops::{Course, Report, Side};
use pillion_proxy::{
    error::{Hop, Reason},
    telemetry::{
        edge::{Edge, EdgeKey, Edges, Outcome},
        prometheus::Registry,
        report::WorkerReport,
    },
};
use tokio::{
    process::Command,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use crate::{
    Error,
    crowd::{Call, Crowd, chance},
    server::{Memory, Server},
    settings::Busy,
    sidecar::{Sidecar, Workload},
};

/// For everybody to be seen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Sidecars that join at the same moment.
const JOINING: usize = 32;
/// Documents applied at once.
const AT_ONCE: usize = 100;
const SECOND: Duration = Duration::from_secs(1);
/// Between looks at the control plane's memory.
const LOOK: Duration = Duration::from_secs(60);

/// Ends as the command does, else after so many minutes.
pub(crate) async fn run(program: &Path, busy: &Busy) -> Result<ExitCode, Error> {
    let crowd = Crowd::new(busy.services, busy.edges);
    let folder = tempfile::tempdir()?;
    let server = Server::start(program, folder.path()).await?;
    for services in crowd.services.chunks(AT_ONCE) {
        server.apply(services.iter().map(|service| service.document()).collect()).await?;
    }
    let sidecars = join(&server, &crowd).await?;
    let counting = tokio::task::spawn_local(count(crowd.clone(), sidecars));
    let ended = tokio::select! {
        ended = look(&server, busy, &crowd) => ended,
        _ = counting => Err("the sidecars have ended".into()),
    };
    say(&server.memory()?, &crowd, "in the end");
    ended
}

async fn look(server: &Server, busy: &Busy, crowd: &Crowd) -> Result<ExitCode, Error> {
    let all = (crowd.services.len(), crowd.calls.len());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = server.shows().await?;
        if shown == all {
            break;
        }
        if Instant::now() > deadline {
            return Err(format!("of {all:?} services and edges {shown:?} are seen after {PATIENCE:?}").into());
        }
        sleep(SECOND / 5).await;
    }
    let Some((program, arguments)) = busy.command.split_first() else {
        let end = Instant::now() + Duration::from_secs(busy.minutes * 60);
        let mut minute = 0;
        while Instant::now() < end {
            sleep(LOOK).await;
            minute += 1;
            say(&server.memory()?, crowd, &format!("after {minute} min"));
        }
        return Ok(ExitCode::SUCCESS);
    };
    let status = Command::new(program)
        .args(arguments)
        .env("PILLION_DASHBOARD_URL", server.dashboard())
        .env("PILLION_TOKEN_FILE", server.token_file())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|error| format!("{program}: {error}"))?;
    Ok(ExitCode::from(u8::from(!status.success())))
}

#[expect(clippy::print_stdout, reason = "what was measured is this program's output")]
fn say(memory: &Memory, crowd: &Crowd, when: &str) {
    println!(
        "{} services, {} edges, {when}: the control plane is resident in {:.0} MB, {:.0} MB at its most",
        crowd.services.len(),
        crowd.calls.len(),
        memory.resident,
        memory.peak
    );
}

/// Each service's workload joins, and follows nothing: nothing is sent.
async fn join(server: &Server, crowd: &Crowd) -> Result<Vec<Sidecar>, Error> {
    let registry = Arc::new(Registry::new());
    let address = server.address();
    let joining = crowd.services.iter().enumerate().map(|(number, service)| {
        let (registry, address) = (&registry, &address);
        async move {
            let token = server.join_token_in(service.namespace, &service.name).await?;
            let workload = Workload::join(address, &token, number, service.name.clone(), registry).await?;
            Ok::<_, Error>(Sidecar::start(address, workload, 0, Vec::new(), registry))
        }
    });
    stream::iter(joining).buffered(JOINING).try_collect().await
}

/// One call as both sidecars count it.
struct Counted {
    call: Call,
    outbound: Rc<Edge>,
    inbound: Rc<Edge>,
}

/// Counts and tells, once a second, for ever.
async fn count(crowd: Crowd, sidecars: Vec<Sidecar>) {
    let edges: Vec<Edges> = sidecars.iter().map(|_| Edges::new(true, Rc::default())).collect();
    let names: Vec<Arc<str>> = crowd.services.iter().map(|service| service.full().into()).collect();
    let counted = crowd.calls.iter().map(|call| {
        let key = |direction| EdgeKey {
            direction,
            source: Arc::clone(&names[call.from]),
            target: Arc::clone(&names[call.to]),
            backend: Arc::clone(&names[call.to]),
            // Callers name the one that served.
            workload: match direction {
                Hop::Outbound => format!("{}-{}", crowd.services[call.to].name, call.to).into(),
                Hop::Inbound => "".into(),
            },
            mtls: !call.to.is_multiple_of(61),
        };
        let (outbound, inbound) =
            (edges[call.from].edge(key(Hop::Outbound)), edges[call.to].edge(key(Hop::Inbound)));
        Counted { call: *call, outbound, inbound }
    });
    let counted: Vec<Counted> = counted.collect();
    let mut seconds = interval(SECOND);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for second in 0.. {
        seconds.tick().await;
        for counted in &counted {
            a_second(counted, &crowd, second);
        }
        for (sidecar, edges) in sidecars.iter().zip(&edges) {
            sidecar.count(WorkerReport { edges: edges.take(), ..WorkerReport::default() });
        }
    }
}

/// One second's requests of a call: most near the median, some slow, and some that fail where the service is not well.
fn a_second(Counted { call, outbound, inbound }: &Counted, crowd: &Crowd, second: u64) {
    let service = &crowd.services[call.to];
    let seed = call.from as u64 * 1_000_003 + call.to as u64 * 101 + second;
    // It comes and goes in waves of minutes.
    let wave = 100 + (chance(call.to as u64 + second / 45, 11) % 40);
    for request in 0..(call.rps * wave / 120).max(1) {
        let dice = |salt| chance(seed * 131 + request, salt) % 1000;
        let slow = match dice(12) {
            0..700 => 800 + dice(13) / 2,
            700..980 => 1300 + 3 * dice(13),
            _ => 6000 + 20 * dice(13),
        };
        let application = service.takes_us * slow / 1000;
        let (sent, network, server) = (60 + dice(14) / 10, 300 + dice(15), 40 + dice(16) / 10);
        let whole = sent + network + server + application;
        let report = Report { server: server as u32, application: application as u32, ..Report::default() };
        let seen =
            Course { sent: Some(sent), head: Some(whole), report: Some(report), whole, ..Course::default() };
        let own = server + application;
        let served = Course { sent: Some(server), head: Some(own), whole: own, ..Course::default() };
        let outcome = if dice(17) >= service.failing {
            Outcome::Status(StatusCode::OK)
        } else if dice(18) < 300 {
            Outcome::Refused(Reason::BreakersOpen)
        } else {
            Outcome::Status(StatusCode::INTERNAL_SERVER_ERROR)
        };
        outbound.request(outcome, whole);
        outbound.split(&seen.split(Side::Client));
        if !matches!(outcome, Outcome::Refused(_)) {
            inbound.request(outcome, own);
            inbound.split(&served.split(Side::Server));
        }
    }
}
