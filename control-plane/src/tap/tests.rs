use super::*;

fn taps() -> Arc<Taps> {
    Arc::new(Taps::new(Arc::default()))
}

fn wanted(max_per_second: u32) -> Wanted {
    let scope = Scope { resource: Resource::Mesh, callers: false, namespace: None };
    Wanted { scope, filter: wire::TapFilter::default(), max_per_second, headers: Vec::new() }
}

fn about(workload: &str) -> About<'_> {
    About { namespace: "demo", workload }
}

fn events(many: usize) -> wire::TapEvents {
    wire::TapEvents { events: vec![wire::TapEvent::default(); many], ..Default::default() }
}

#[tokio::test(start_paused = true)]
async fn a_tap_is_on_the_list_for_as_long_as_its_reader_is_there() {
    let taps = taps();
    let mut list = taps.follow();
    let readers: Vec<Reader> =
        (0..MAX_TAPS).map(|_| taps.open(wanted(1), Instant::now()).expect("room")).collect();
    assert!(taps.open(wanted(1), Instant::now()).is_none());
    assert_eq!(list.borrow_and_update().len(), MAX_TAPS);
    drop(readers);
    assert!(list.has_changed().expect("the taps are there") && list.borrow().is_empty());
    assert!(taps.open(wanted(1), Instant::now()).is_some());
}

#[tokio::test(start_paused = true)]
async fn all_sidecars_together_tell_no_more_than_the_rate() {
    let (taps, now) = (taps(), Instant::now());
    let mut reader = taps.open(wanted(10), now).expect("room");
    let [one, other] = ["a", "b"].map(|name| reader.tap.join(about(name), "1", now));
    one.told(events(8), now);
    other.told(wire::TapEvents { limited: 5, overflowed: 3, ..events(8) }, now);
    let status = reader.status(&Away::default(), "", now);
    assert_eq!(status.dropped, TapDropped { limited: 5 + 6, overflowed: 3, unread: 0 });
    one.told(events(8), now + Duration::from_secs(1));
    assert_eq!(reader.status(&Away::default(), "", now).dropped.limited, 11);
    for _ in 0..18 {
        reader.next().await;
    }
    assert!(reader.told.is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_waits_for_a_reader_that_does_not_read() {
    let (taps, now) = (taps(), Instant::now());
    let reader = taps.open(wanted(u32::MAX), now).expect("room");
    let joined = reader.tap.join(about("a"), "1", now);
    for _ in 0..10 {
        joined.told(events(MAX_BATCH + 1), now);
    }
    let dropped = reader.status(&Away::default(), "", now).dropped;
    let unread = (10 * MAX_BATCH - AHEAD) as u64;
    assert_eq!(dropped, TapDropped { limited: 0, overflowed: 10, unread });
}

#[tokio::test(start_paused = true)]
async fn it_is_said_why_nothing_comes() {
    let (taps, now) = (taps(), Instant::now());
    let reader = taps.open(wanted(10), now).expect("room");
    let notes = |away: &Away, now| reader.status(away, "nobody is there", now).notes;
    assert_eq!(notes(&Away::default(), now), ["nobody is there"]);
    let joined = ["a", "b", "c", "d", "e", "f"].map(|name| reader.tap.join(about(name), "0.1.0", now));
    assert!(notes(&Away::default(), now).is_empty(), "they have a moment to answer");
    joined[0].answered(String::new());
    joined[1].answered("too many taps".to_owned());
    joined[2].answered("too many taps".to_owned());
    let later = now + ANSWER;
    let mut away = Away::default();
    let mut gone = |names: &[&str], now_ms| {
        let meant = |name: &&str| Meant {
            uid: (*name).to_owned(),
            name: (*name).to_owned(),
            connected: now_ms > 60_000,
            since_ms: 0,
        };
        away.review(names.iter().map(meant), now_ms);
        away.clone()
    };
    assert_eq!(
        notes(&gone(&["g"], 60_000), later),
        [
            "no answer from the sidecars of d (release 0.1.0), e (release 0.1.0), f (release 0.1.0): they may be of \
             a release without tap",
            "the sidecars of b, c tell nothing: too many taps",
            "the sidecar of g is not connected to this control plane: its stream is lost, or is another's",
        ]
    );
    let status = reader.status(&Away::default(), "", later);
    assert_eq!((status.listening, status.waiting, status.refused), (1, 3, 2));
    let last = |away: &Away| notes(away, later).pop().expect("a note");
    assert_eq!(
        last(&gone(&["g", "h"], 60_000)),
        "the sidecars of g, h are not connected to this control plane: their streams are lost, or are another's"
    );
    assert_eq!(last(&gone(&["g", "h"], 60_001)), "the sidecars of g, h are connected again");
    drop(joined);
    assert_eq!(reader.status(&Away::default(), "", later).listening, 0);
}

#[tokio::test(start_paused = true)]
async fn with_very_many_sidecars_each_may_tell_less() {
    let (taps, now) = (taps(), Instant::now());
    let reader = taps.open(wanted(100), now).expect("room");
    let rate = || reader.tap.start(Duration::from_secs(1)).max_per_second;
    let mut joined: Vec<Joined> = (0..100).map(|_| reader.tap.join(about("a"), "1", now)).collect();
    assert_eq!(rate(), 100);
    joined.extend((0..900).map(|_| reader.tap.join(about("a"), "1", now)));
    assert_eq!(rate(), 10);
}
