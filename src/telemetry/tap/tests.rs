use pillion_api::{
    hops::Side,
    tap::{Ended, Who},
    wire::TapFilter,
};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn taps() -> Taps {
    Taps::new(Arc::default())
}

fn start(id: u64, max_per_second: u32) -> StartTap {
    let filter = Some(TapFilter { path_prefix: "/pay".into(), ..Default::default() });
    let headers = ["x-request-id", "Authorization", "cookie"].map(str::to_owned).into();
    StartTap { id, filter, max_per_second, headers, lease_ms: 10_000 }
}

fn facts(path: &str) -> Facts<'_> {
    Facts {
        side: Side::Client,
        method: "GET",
        path,
        ended: Ended { http: Some(200), ..Ended::default() },
        from: Who::default(),
        to: Who::default(),
        took_us: 1,
    }
}

/// A worker tells of requests.
fn serve(watched: &watch::Receiver<Watched>, path: &str, many: usize, now: Instant) {
    let watched = watched.borrow();
    for tap in watched.iter().flat_map(|taps| taps.iter()) {
        for _ in 0..many {
            tap.tell(&facts(path), now, |_| TapEvent::default());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_is_asked_for_is_told_and_no_more_than_the_rate_over_all_workers() {
    let (mut taps, now) = (taps(), Instant::now());
    let workers = [taps.follow(), taps.follow()];
    assert_eq!(taps.start(start(7, 20), now), TapAnswer { id: 7, refusal: String::new() });
    for step in 0..10 {
        for worker in &workers {
            serve(worker, "/pay/1", 10, now + step * SECOND);
            serve(worker, "/other", 10, now + step * SECOND);
        }
    }
    let mut told = 0;
    while !taps.events.is_empty() {
        for events in taps.told().await {
            assert_eq!(events.id, 7);
            told += events.events.len();
            taps.passed_on(&events, true);
        }
    }
    // As many come each second as are allowed.
    assert_eq!(told, 200);
    let left_out = taps.left_out();
    assert_eq!((left_out[0].limited, left_out[0].passed_by), (0, 200));
    for worker in &workers {
        serve(worker, "/pay", 100, now + 10 * SECOND);
    }
    assert_eq!(taps.told().await[0].events.len(), 20);
    let left_out = taps.left_out();
    assert_eq!((left_out[0].id, left_out[0].limited, left_out[0].overflowed), (7, 180, 0));
    assert!(taps.left_out().is_empty(), "it is told once");
}

#[tokio::test(start_paused = true)]
async fn what_finds_no_room_is_counted() {
    let (mut taps, now) = (taps(), Instant::now());
    let worker = taps.follow();
    taps.start(start(1, 1000), now);
    for step in 0..2 {
        serve(&worker, "/pay", 1000, now + step * SECOND);
    }
    assert_eq!(taps.left_out()[0].overflowed, 2000 - QUEUE as u64);
    let told = taps.told().await;
    taps.passed_on(&told[0], false);
    assert_eq!(taps.left_out()[0].overflowed, told[0].events.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn it_ends_unless_it_is_renewed() {
    let (mut taps, now) = (taps(), Instant::now());
    let worker = taps.follow();
    taps.start(start(1, 20), now);
    let first = worker.borrow().clone().expect("one");
    taps.expire(now + 9 * SECOND);
    taps.start(start(1, 20), now + 9 * SECOND);
    assert!(Arc::ptr_eq(&first, worker.borrow().as_ref().expect("one")), "nothing has changed");
    taps.expire(now + 18 * SECOND);
    assert!(worker.borrow().is_some());
    taps.expire(now + 19 * SECOND);
    assert!(worker.borrow().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_was_on_its_way_when_it_ended_is_for_nobody() {
    let (mut taps, now) = (taps(), Instant::now());
    let worker = taps.follow();
    taps.start(start(1, 20), now);
    let late = worker.borrow().clone().expect("one");
    taps.clear();
    assert!(worker.borrow().is_none());
    // Of another control plane, which begins to count anew.
    taps.start(start(1, 20), now);
    late[0].tell(&facts("/pay"), now, |_| TapEvent::default());
    assert!(taps.told().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_rate_holds_at_once_and_gives_no_new_burst() {
    let (mut taps, now) = (taps(), Instant::now());
    let worker = taps.follow();
    taps.start(start(1, 20), now);
    serve(&worker, "/pay", 30, now);
    taps.start(start(1, 10), now);
    serve(&worker, "/pay", 30, now);
    assert_eq!(taps.told().await[0].events.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn credentials_are_never_told_and_taps_are_bounded() {
    let (mut taps, now) = (taps(), Instant::now());
    let worker = taps.follow();
    taps.start(start(0, 20), now);
    assert_eq!(worker.borrow().as_ref().expect("one")[0].headers, ["x-request-id"]);
    for id in 1..MAX_TAPS as u64 {
        assert_eq!(taps.start(start(id, 20), now).refusal, "");
    }
    assert_eq!(taps.start(start(99, 20), now).refusal, "it has 16 taps already");
    assert_eq!(taps.start(start(3, 20), now).refusal, "", "a renewal needs no room");
    let strange = TapFilter { direction: "sideways".into(), ..Default::default() };
    let refusal = taps.start(StartTap { filter: Some(strange), ..start(3, 20) }, now).refusal;
    assert!(refusal.contains("direction: must be"), "{refusal}");
    assert_eq!(worker.borrow().as_ref().expect("the others").len(), MAX_TAPS - 1);
}
