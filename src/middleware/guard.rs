//! What a workload's own policies make of one client's requests. In this order: rates, as they cost least; sizes; and
//! concurrency last, as it is where a request may wait and holds a place.

use std::{cell::Cell, rc::Rc, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Body as _;
use pillion_api::{model::RequestLimits, route::RequestHead};
use tokio::time::Instant;

use super::{concurrency, rate};
use crate::{
    error::{Reason, Refusal},
    http::{
        Body,
        headers::of_caller,
        through::{Hook, Passing},
    },
};

/// What holds for one client.
#[derive(Debug, Default)]
pub struct Guard {
    /// Requests in a time.
    pub rates: Option<rate::OfClient>,
    /// Of each request.
    pub sizes: Option<RequestLimits>,
    /// Requests at a time.
    pub concurrency: Option<concurrency::OfClient>,
    /// Whose word each of them is.
    pub by: Rc<By>,
}

/// The policies that the parts are of, each `<namespace>/<name>`.
#[derive(Debug, Default)]
pub struct By {
    /// Of rates.
    pub rates: Arc<str>,
    /// Of sizes, and of connections.
    pub sizes: Arc<str>,
    /// Of requests at a time.
    pub concurrency: Arc<str>,
}

/// A request that was let in.
#[derive(Debug, Default)]
pub struct Admitted {
    /// Its place among those under way.
    permit: Option<concurrency::Permit>,
    /// Its body's length is watched: whether it has been too much, and whose word that would be.
    too_large: Option<(Rc<Cell<bool>>, Rc<By>)>,
    /// What its response is to say of rates.
    fields: Option<Box<rate::Fields>>,
}

impl Guard {
    /// Lets a request in, perhaps after a while.
    ///
    /// # Errors
    /// [`Reason::RateLimited`], [`Reason::HeadersTooLarge`], [`Reason::BodyTooLarge`], [`Reason::Overloaded`].
    pub async fn admit(&self, request: &mut Request<Body>, now: Instant) -> Result<Admitted, Refusal> {
        let mut admitted = Admitted::default();
        if let Some(rates) = &self.rates {
            let (method, uri, headers) = (request.method(), request.uri(), request.headers());
            let entered = rates.enter(RequestHead { method, uri, headers }, now);
            admitted.fields = entered.map_err(|refusal| refusal.of_policy(&self.by.rates))?;
        }
        if let Some(sizes) = &self.sizes {
            let fits = head(sizes, request.headers()).and_then(|()| body(sizes, request));
            let watched = fits.map_err(|refusal| refusal.of_policy(&self.by.sizes))?;
            admitted.too_large = watched.map(|too_large| (too_large, self.by.clone()));
        }
        if let Some(concurrency) = &self.concurrency {
            let entered = concurrency.enter(request.headers()).await;
            admitted.permit = Some(entered.map_err(|refusal| refusal.of_policy(&self.by.concurrency))?);
        }
        Ok(admitted)
    }
}

impl Admitted {
    /// It was answered at `now`, or came to nothing: its body may have been too large on the way.
    pub fn answered<B>(
        &mut self,
        mut result: Result<Response<B>, Refusal>,
        now: Instant,
    ) -> Result<Response<B>, Refusal> {
        if let Some(permit) = &mut self.permit {
            permit.answered(result.is_ok(), now);
        }
        if result.is_err()
            && let Some((_, by)) = self.too_large.take_if(|(is, _)| is.get())
        {
            let refusal = Refusal::new(Reason::BodyTooLarge, "more than maxBodyBytes");
            return Err(refusal.of_policy(&by.sizes));
        }
        if let (Ok(response), Some(fields)) = (&mut result, self.fields.take()) {
            fields.put(response.headers_mut());
        }
        result
    }
}

fn head(sizes: &RequestLimits, headers: &HeaderMap) -> Result<(), Refusal> {
    // What sidecars have added is no doing of the caller's; a few that fit anyway need no closer look.
    if let Some(most) = sizes.max_headers
        && headers.len() > most as usize
    {
        let fields = of_caller(headers).count();
        if fields > most as usize {
            let detail = format_args!("{fields} fields, more than maxHeaders {most}");
            return Err(Refusal::new(Reason::HeadersTooLarge, detail));
        }
    }
    if let Some(most) = sizes.max_header_bytes {
        // The measure of RFC 9113 6.5.2, for both versions.
        let measure = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 32;
        let bytes: usize = of_caller(headers).map(measure).sum();
        if bytes > most as usize {
            let detail = format_args!("{bytes} bytes, more than maxHeaderBytes {most}");
            return Err(Refusal::new(Reason::HeadersTooLarge, detail));
        }
    }
    Ok(())
}

/// A body that says its length is judged by that; any other is watched as it passes.
fn body(sizes: &RequestLimits, request: &mut Request<Body>) -> Result<Option<Rc<Cell<bool>>>, Refusal> {
    let Some(most) = sizes.max_body_bytes else { return Ok(None) };
    if request.body().is_end_stream() {
        return Ok(None);
    }
    let hint = request.body().size_hint();
    if hint.lower() > most {
        let detail = format_args!("{} bytes, more than maxBodyBytes {most}", hint.lower());
        return Err(Refusal::new(Reason::BodyTooLarge, detail));
    }
    if hint.exact().is_some() {
        return Ok(None);
    }
    let too_large = Rc::new(Cell::new(false));
    let whole = std::mem::replace(request.body_mut(), Body::Empty);
    *request.body_mut() = whole.through(Limited { left: most, too_large: too_large.clone() });
    Ok(Some(too_large))
}

/// A body may only be so long, and does not say how long it is: it fails with the first byte beyond.
#[derive(Debug)]
struct Limited {
    left: u64,
    too_large: Rc<Cell<bool>>,
}

impl Hook for Limited {
    fn pass(&mut self, passing: Passing, rest: &mut Body) -> Passing {
        let data = passing.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        match self.left.checked_sub(data.map_or(0, |data| data.len() as u64)) {
            Some(left) => {
                self.left = left;
                passing
            }
            None => {
                self.too_large.set(true);
                *rest = Body::Empty;
                Some(Err(Reason::BodyTooLarge.text().into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::BodyExt;

    use super::*;

    fn guard(sizes: RequestLimits) -> Guard {
        Guard { sizes: Some(sizes), ..Guard::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn sizes_are_held() {
        let limits = |max_header_bytes, max_headers, max_body_bytes| RequestLimits {
            max_header_bytes,
            max_headers,
            max_body_bytes,
            ..RequestLimits::default()
        };
        for (sizes, expected) in [
            (limits(None, None, None), None),
            (limits(Some(2 * (32 + 3 + 5)), Some(2), Some(4)), None),
            (limits(Some(2 * (32 + 3 + 5) - 1), None, None), Some(Reason::HeadersTooLarge)),
            (limits(None, Some(1), None), Some(Reason::HeadersTooLarge)),
            (limits(None, None, Some(3)), Some(Reason::BodyTooLarge)),
        ] {
            let request = Request::builder().header("x-1", "value").header("x-2", "value");
            let mut request = request.body(Body::Full(Bytes::from_static(b"four"))).expect("a request");
            let admitted = guard(sizes.clone()).admit(&mut request, Instant::now()).await;
            assert_eq!(admitted.err().map(|refusal| refusal.reason), expected, "{sizes:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_without_a_length_is_watched() {
        for (most, fits) in [(4, true), (3, false)] {
            let too_large = Rc::new(Cell::new(false));
            let limited = Limited { left: most, too_large: too_large.clone() };
            let collected = Body::Full(Bytes::from_static(b"four")).through(limited).collect().await;
            assert_eq!((collected.is_ok(), too_large.get()), (fits, !fits));
            let mut admitted =
                Admitted { too_large: Some((too_large, Rc::default())), ..Admitted::default() };
            let failed: Result<Response<()>, Refusal> = Err(Reason::Reset.into());
            let refusal = admitted.answered(failed, Instant::now()).expect_err("it failed");
            assert_eq!(refusal.reason, if fits { Reason::Reset } else { Reason::BodyTooLarge });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_sidecars_add_is_not_the_caller_s() {
        const LONG: &str = "00000000000000000000000000000000000000000000000000000000000000001";
        let sizes = RequestLimits {
            max_header_bytes: Some(3 * 32 + 40),
            max_headers: Some(3),
            ..RequestLimits::default()
        };
        let guard = Guard { by: Rc::new(By { sizes: "demo/pay".into(), ..By::default() }), ..guard(sizes) };
        let added =
            [("traceparent", "00-7-7-01"), ("pillion-names", "a,b"), ("x-pillion-timeout-ms", "1000")];
        let own = [("x-1", "value"), ("x-2", "value"), ("x-3", "value")];
        for (more, fits) in [
            (&[][..], true),
            (&[("x-pillion-attempt", "2")], true),
            (&[("x-4", "value")], false),
            // Those are more than sidecars add.
            (&[("traceparent", "00-7-7-01")], false),
            (&[("x-pillion-attempt", LONG)], false),
        ] {
            let mut request = Request::new(Body::Empty);
            for (name, value) in added.iter().chain(&own).chain(more) {
                let value = HeaderValue::from_str(value).expect("a value");
                request.headers_mut().append(HeaderName::from_static(name), value);
            }
            let admitted = guard.admit(&mut request, Instant::now()).await;
            let detail = admitted.err().map(|refusal| refusal.detail);
            let expected = "4 fields, more than maxHeaders 3 of TrafficPolicy demo/pay";
            assert_eq!(detail.as_deref(), (!fits).then_some(expected), "{more:?}");
        }
    }
}
