//! Bodies that are sent more than once.

use http_body_util::BodyExt;

use super::*;

/// Gives its frames one by one, each only when asked twice.
#[derive(Debug)]
struct Slowly(Vec<&'static [u8]>, bool);

impl Progress for Slowly {}

impl http_body::Body for Slowly {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.1 = !self.1;
        if self.1 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.0.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(self.0.remove(0))))))
    }
}

fn slowly(frames: &[&'static [u8]]) -> Body {
    Body::Wrapped(Box::new(Slowly(frames.to_vec(), false)))
}

fn replay(source: Body, most: usize, room: &Rc<Room>) -> Replay {
    Replay::of(source, most, room).1
}

async fn all(body: Body) -> Result<Bytes, BodyError> {
    Ok(body.collect().await?.to_bytes())
}

#[tokio::test]
async fn every_reader_gets_all_of_it_also_two_at_a_time() {
    let room = Room::new(1000);
    let replay = replay(slowly(&[b"one", b"two", b"three"]), 1000, &room);
    let (first, second) = (replay.reader().expect("whole"), replay.reader().expect("whole"));
    let (first, second) = tokio::join!(all(first), all(second));
    assert_eq!(first.expect("whole"), "onetwothree");
    assert_eq!(second.expect("whole"), "onetwothree");
    assert_eq!(all(replay.reader().expect("still whole")).await.expect("whole"), "onetwothree");
    assert_eq!(room.0.get(), 1000 - 3 * LEAST);
    drop(replay);
    assert_eq!(room.0.get(), 1000);
}

#[tokio::test]
async fn a_reader_that_is_dropped_leaves_nobody_asleep() {
    let replay = replay(slowly(&[b"one", b"two"]), 1000, &Room::new(1000));
    let (first, second) = (replay.reader().expect("whole"), replay.reader().expect("whole"));
    let mut reading = Box::pin(all(second));
    assert!(futures_util::poll!(&mut reading).is_pending());
    drop(first);
    assert_eq!(reading.await.expect("whole"), "onetwo");
}

const BIG: &[u8] = &[7; 200];

#[tokio::test(start_paused = true)]
async fn beyond_a_bound_it_is_sent_once_only() {
    for (most, room) in [(300, 1000), (1000, 300)] {
        let room = Room::new(room);
        let whole = room.0.get();
        let (first, replay) = Replay::of(slowly(&[BIG, BIG, BIG]), most, &room);
        assert_eq!(all(first).await.expect("whole").len(), 600);
        assert!(replay.reader().is_none());
        assert_eq!(room.0.get(), whole, "nothing is kept any more");
    }
}

/// Reads all that there is, with a pause before each frame.
async fn read(body: &mut Body, pause: Duration) -> Result<usize, BodyError> {
    let mut length = 0;
    loop {
        tokio::time::sleep(pause).await;
        let Some(frame) = body.frame().await else { return Ok(length) };
        length += frame?.into_data().expect("data").len();
    }
}

#[tokio::test(start_paused = true)]
async fn beyond_a_bound_who_is_ahead_waits_for_who_is_behind() {
    for (most, room) in [(300, 10_000), (10_000, 300), (0, 10_000), (10_000, 0)] {
        let room = Room::new(room);
        let whole = room.0.get();
        let frames = [BIG; 20];
        let (mut first, replay) = Replay::of(slowly(&frames), most, &room);
        let mut second = replay.reader().expect("whole");
        // Slower than the source, but not by much.
        let (ahead, behind) =
            tokio::join!(read(&mut first, Duration::ZERO), read(&mut second, PATIENCE / 25));
        let lengths = (ahead.expect("whole"), behind.expect("whole"));
        assert_eq!(lengths, (4000, 4000), "{most} {}", room.0.get());
        drop((first, second));
        assert_eq!(room.0.get(), whole, "nothing is kept any more");
        assert!(replay.reader().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_ahead_waits_only_so_long_in_all_for_one_that_moves() {
    for (most, room) in [(300, 10_000), (0, 10_000), (10_000, 0)] {
        let frames = [BIG; 20];
        let (mut first, replay) = Replay::of(slowly(&frames), most, &Room::new(room));
        let mut second = replay.reader().expect("whole");
        let began = tokio::time::Instant::now();
        let ahead = async {
            let length = read(&mut first, Duration::ZERO).await.expect("whole");
            (length, began.elapsed())
        };
        let ((length, took), behind) = tokio::join!(ahead, read(&mut second, PATIENCE / 3));
        assert_eq!(length, 4000);
        assert!(took >= PATIENCE && took < PATIENCE * 2, "{took:?}");
        assert!(behind.is_err(), "half a body is none");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_who_does_not_move() {
    let room = Room::new(1000);
    let (first, replay) = Replay::of(slowly(&[BIG, BIG, BIG]), 300, &room);
    let Some(Body::Kept(mut behind)) = replay.reader() else { panic!("it is whole") };
    let Body::Kept(ahead) = &first else { panic!("it can be sent again") };
    let (overtaken, never) = (behind.overtaken(), ahead.overtaken());
    let began = tokio::time::Instant::now();
    behind.frame().await.expect("a frame").expect("data");
    assert_eq!(all(first).await.expect("whole").len(), 600);
    assert!(began.elapsed() >= PATIENCE && began.elapsed() < 2 * PATIENCE);
    assert!(overtaken.get() && !never.get(), "it is known before it asks for more");
    assert!(all(Body::Kept(behind)).await.is_err(), "half a body is none");
    assert_eq!(room.0.get(), 1000, "nothing is kept any more");
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_goes_on_when_the_other_one_is_gone() {
    let (first, replay) = Replay::of(slowly(&[BIG, BIG, BIG]), 300, &Room::new(1000));
    let behind = replay.reader().expect("whole");
    let mut reading = Box::pin(all(first));
    assert!(futures_util::poll!(&mut reading).is_pending());
    drop(behind);
    let began = tokio::time::Instant::now();
    assert_eq!(reading.await.expect("whole").len(), 600);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn what_is_released_is_kept_no_longer_than_needed() {
    let room = Room::new(1000);
    let replay = replay(slowly(&[b"one", b"two"]), 1000, &room);
    let mut reader = replay.reader().expect("whole");
    reader.frame().await.expect("a frame").expect("data");
    drop(replay);
    assert_eq!(room.0.get(), 1000 - LEAST);
    assert_eq!(all(reader).await.expect("the rest"), "two");
    assert_eq!(room.0.get(), 1000);
}

#[tokio::test]
async fn two_who_may_repeat_it_keep_it_once_and_for_the_one_who_wants_more() {
    let room = Room::new(1000);
    let (body, fallback) = Replay::of(slowly(&[b"one", b"two"]), 100, &room);
    let (body, retries) = Replay::of(body, 1000, &room);
    assert_eq!(all(body).await.expect("whole"), "onetwo");
    assert_eq!(room.0.get(), 1000 - 2 * LEAST);
    drop(retries);
    let body = fallback.reader().expect("still whole");
    drop(fallback);
    assert_eq!(all(body).await.expect("whole"), "onetwo");
    assert_eq!(room.0.get(), 1000);
}
