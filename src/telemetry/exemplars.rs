//! Examples of the requests that a histogram counts: of those whose traces are recorded the latest in each bucket, so that whoever
//! sees that some are slow finds one of them.

use std::{
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use pillion_api::latency;

use super::{
    tallies::{SHOWN, place},
    trace::context::{SpanId, TraceId},
};

/// A request that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exemplar {
    /// Its trace.
    pub trace: TraceId,
    /// Its span there.
    pub span: SpanId,
    /// From its beginning to its end, microseconds.
    pub took_us: u64,
    /// When that was.
    pub ended: SystemTime,
}

/// At most one for each bucket; without memory until there is any.
#[derive(Debug, Clone, Default)]
pub struct Exemplars(Option<Box<[Option<Exemplar>; SHOWN]>>);

impl Exemplars {
    /// Keeps one, instead of the bucket's one before.
    pub fn put(&mut self, exemplar: Exemplar) {
        let kept = self.0.get_or_insert_with(|| Box::new([None; SHOWN]));
        kept[exemplar.place()] = Some(exemplar);
    }

    /// Of a bucket that is shown.
    pub(super) fn at(&self, place: usize) -> Option<&Exemplar> {
        self.0.as_ref()?[place].as_ref()
    }

    /// Takes all, and keeps the memory.
    pub(super) fn drain(&mut self) -> Vec<Exemplar> {
        self.0.iter_mut().flat_map(|kept| kept.iter_mut().filter_map(Option::take)).collect()
    }
}

impl Exemplar {
    /// The bucket that it falls into.
    pub(super) fn place(&self) -> usize {
        place(latency::index(self.took_us))
    }

    /// Behind its bucket's count, as OpenMetrics has it.
    pub(super) fn write(&self, out: &mut String) {
        let Self { trace, span, took_us, ended } = self;
        let seconds = *took_us as f64 / 1e6;
        let since = ended.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (at, ms) = (since.as_secs(), since.subsec_millis());
        let _ = write!(out, " # {{trace_id=\"{trace}\",span_id=\"{span}\"}} {seconds} {at}.{ms:03}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn exemplar(trace: u128, took_us: u64) -> Exemplar {
        Exemplar {
            trace: TraceId::new(trace).expect("not zero"),
            span: SpanId::new(0x00f0_67aa_0ba9_02b7).expect("not zero"),
            took_us,
            ended: UNIX_EPOCH + Duration::from_millis(1_700_000_000_007),
        }
    }

    #[test]
    fn the_latest_of_each_bucket_is_kept() {
        let mut exemplars = Exemplars::default();
        assert_eq!(exemplars.drain(), []);
        let (slow, last) = (exemplar(2, 900_000), exemplar(3, 310));
        [exemplar(1, 300), slow, last].into_iter().for_each(|it| exemplars.put(it));
        assert_eq!(exemplars.at(last.place()), Some(&last));
        assert_eq!(exemplars.drain(), [last, slow]);
        assert_eq!(exemplars.drain(), []);
        exemplars.put(exemplar(4, u64::MAX));
        assert_eq!(exemplars.drain().len(), 1);
    }

    #[test]
    fn it_is_written_as_the_specification_has_it() {
        let mut text = String::new();
        exemplar(0x4bf9, 1500).write(&mut text);
        let labels = "trace_id=\"00000000000000000000000000004bf9\",span_id=\"00f067aa0ba902b7\"";
        assert_eq!(text, format!(" # {{{labels}}} 0.0015 1700000000.007"));
        // Names and values together.
        assert!(labels.replace(['=', '"', ','], "").chars().count() <= 128);
    }
}
