//! What a workload's own policies make of one client's requests. In this order: rates, as they cost least; sizes; and
//! concurrency last, as it is where a request may wait and holds a place.

use std::{cell::Cell, rc::Rc};

use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use pillion_api::{model::RequestLimits, route::RequestHead};
use tokio::time::Instant;

use super::{concurrency, rate};
use crate::{
    error::{Reason, Refusal},
    http::{Body, body::Limited},
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
}

/// A request that was let in.
#[derive(Debug, Default)]
pub struct Admitted {
    /// Its place among those under way.
    permit: Option<concurrency::Permit>,
    /// Its body's length is watched: whether it has been too much.
    too_large: Option<Rc<Cell<bool>>>,
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
            admitted.fields = rates.enter(RequestHead { method, uri, headers }, now)?;
        }
        if let Some(sizes) = &self.sizes {
            head(sizes, request.headers())?;
            admitted.too_large = body(sizes, request)?;
        }
        if let Some(concurrency) = &self.concurrency {
            admitted.permit = Some(concurrency.enter(request.headers()).await?);
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
        if result.is_err() && self.too_large.as_ref().is_some_and(|it| it.get()) {
            return Err(Reason::BodyTooLarge.into());
        }
        if let (Ok(response), Some(fields)) = (&mut result, self.fields.take()) {
            fields.put(response.headers_mut());
        }
        result
    }
}

fn head(sizes: &RequestLimits, headers: &HeaderMap) -> Result<(), Refusal> {
    if let Some(most) = sizes.max_headers
        && headers.len() > most as usize
    {
        let detail = format_args!("{} fields, {most} are allowed", headers.len());
        return Err(Refusal::new(Reason::HeadersTooLarge, detail));
    }
    if let Some(most) = sizes.max_header_bytes {
        // The measure of RFC 9113 6.5.2, for both versions.
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        if bytes > most as usize {
            let detail = format_args!("{bytes} bytes, {most} are allowed");
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
        let detail = format_args!("{} bytes, {most} are allowed", hint.lower());
        return Err(Refusal::new(Reason::BodyTooLarge, detail));
    }
    if hint.exact().is_some() {
        return Ok(None);
    }
    let too_large = Rc::new(Cell::new(false));
    let whole = std::mem::replace(request.body_mut(), Body::Empty);
    *request.body_mut() = Body::Wrapped(Box::new(Limited::new(whole, most, too_large.clone())));
    Ok(Some(too_large))
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
            let body = Limited::new(Body::Full(Bytes::from_static(b"four")), most, too_large.clone());
            let collected = Body::Wrapped(Box::new(body)).collect().await;
            assert_eq!((collected.is_ok(), too_large.get()), (fits, !fits));
            let mut admitted = Admitted { too_large: Some(too_large), ..Admitted::default() };
            let failed: Result<Response<()>, Refusal> = Err(Reason::Reset.into());
            let refusal = admitted.answered(failed, Instant::now()).expect_err("it failed");
            assert_eq!(refusal.reason, if fits { Reason::Reset } else { Reason::BodyTooLarge });
        }
    }
}
