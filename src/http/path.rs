//! Gives a request's path the spelling in which it is matched, before anything is decided by it. It goes on in that spelling: an
//! application must not read another path than the one that was decided on.

use ::http::{Request, Uri, uri::PathAndQuery};
use pillion_api::path;

use crate::error::{Reason, Refusal};

/// The longest target, bytes: what [`Uri`] takes.
const LONGEST: usize = u16::MAX as usize - 1;

/// Changes nothing, and costs one look, where the path is spelled so already.
///
/// # Errors
/// [`Reason::MalformedRequest`]: it has no such spelling; [`Reason::UriTooLong`]: in that spelling.
pub fn normalise<B>(request: &mut Request<B>) -> Result<(), Refusal> {
    match path::normal(request.uri().path()) {
        Ok(None) => Ok(()),
        Ok(Some(normal)) => replace(request.uri_mut(), normal),
        Err(nul) => Err(Refusal::new(Reason::MalformedRequest, nul)),
    }
}

fn replace(uri: &mut Uri, path: String) -> Result<(), Refusal> {
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    if target.len() > LONGEST {
        return Err(Reason::UriTooLong.into());
    }
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).expect("a path of ASCII, and a query"));
    *uri = Uri::from_parts(parts).expect("parts of a valid URI fit together");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalised(target: &str) -> Result<String, Reason> {
        let mut request = Request::new(());
        *request.uri_mut() = target.parse().expect("a target");
        normalise(&mut request).map_err(|refusal| refusal.reason)?;
        Ok(request.uri().to_string())
    }

    #[test]
    fn only_the_path_is_spelled_anew_in_every_form_of_target() {
        for (target, expected) in [
            ("/a/../b?x=/../%61", "/b?x=/../%61"),
            ("/a/../b?", "/b?"),
            ("http://web.demo:80/%61", "http://web.demo:80/a"),
            ("http://web.demo?q", "http://web.demo/?q"),
            ("web.demo:80", "web.demo:80"),
            ("*", "*"),
            ("/..//web/", "//web/"),
            ("/./a\"{}|^", "/a\"{}|^"),
        ] {
            assert_eq!(normalised(target).as_deref(), Ok(expected), "{target}");
        }
        assert_eq!(normalised("/a%00"), Err(Reason::MalformedRequest));
        let long = format!("/{}", "é".repeat(20_000));
        assert_eq!(normalised(&long), Err(Reason::UriTooLong));
    }
}
