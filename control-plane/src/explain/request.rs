//! A question checked: every fault of it at once.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use pillion_api::{path, route::RequestHead};

use super::view::{ExplainRequest, HeaderField, RequestView};
use crate::resource::Fault;

/// The most header fields that are taken.
const MAX_HEADERS: usize = 100;

/// The request that is asked about.
#[derive(Debug)]
pub(super) struct Asked {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    /// The host that it names, without a port.
    pub host: String,
    /// The port that it names.
    pub port: Option<u16>,
}

impl Asked {
    /// Reads a question.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(super) fn read(question: &ExplainRequest) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        if question.from.is_empty() {
            faults.push(Fault::new("from", "must say who calls, such as \"web.demo\""));
        }
        let (host, port) = host_and_port(&question.to).unwrap_or_else(|message| {
            faults.push(Fault::new("to", message));
            Default::default()
        });
        let mut headers = HeaderMap::new();
        if question.headers.len() > MAX_HEADERS {
            faults.push(Fault::new("headers", format!("must be {MAX_HEADERS} at most")));
        }
        for (index, HeaderField { name, value }) in question.headers.iter().take(MAX_HEADERS).enumerate() {
            match (HeaderName::try_from(name), HeaderValue::from_str(value)) {
                (Ok(name), Ok(value)) => {
                    headers.append(name, value);
                }
                (Err(_), _) => {
                    let message = format!("{name:?} is no name of a header");
                    faults.push(Fault::new(format!("headers[{index}].name"), message));
                }
                (_, Err(_)) => {
                    let message = format!("{value:?} can be no value of a header");
                    faults.push(Fault::new(format!("headers[{index}].value"), message));
                }
            }
        }
        let mut method = question.method.as_deref().unwrap_or("GET");
        let mut path = question.path.clone().unwrap_or_else(|| "/".to_owned());
        if let Some(call) = &question.grpc {
            for (field, given) in [("path", question.path.is_some()), ("method", question.method.is_some())] {
                if given {
                    faults.push(Fault::new(field, "is what the gRPC call says"));
                }
            }
            if call.trim_start_matches('/').split('/').filter(|part| !part.is_empty()).count() != 2 {
                let message = format!("must be <service>/<method>, is {call:?}");
                faults.push(Fault::new("grpc", message));
            }
            (method, path) = ("POST", format!("/{}", call.trim_start_matches('/')));
            headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/grpc"));
            headers.entry(header::TE).or_insert(HeaderValue::from_static("trailers"));
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap_or_else(|_| {
            faults.push(Fault::new("method", format!("{method:?} is no method")));
            Method::GET
        });
        let uri = Uri::builder().path_and_query(path.as_str()).build().ok();
        let uri =
            uri.filter(|uri| path.starts_with('/') && uri.path().starts_with('/')).unwrap_or_else(|| {
                faults.push(Fault::new("path", format!("must be a path such as \"/pay?id=7\", is {path:?}")));
                Uri::from_static("/")
            });
        // As a sidecar does before it decides anything.
        let uri = match path::normal(uri.path()) {
            Ok(None) => uri,
            Ok(Some(normal)) => {
                let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
                Uri::try_from(normal + &query).expect("a path of ASCII, and a query")
            }
            Err(nul) => {
                faults.push(Fault::new("path", format!("is refused by sidecars: {nul}")));
                uri
            }
        };
        if faults.is_empty() { Ok(Self { method, uri, headers, host, port }) } else { Err(faults) }
    }

    /// As routing looks at it.
    pub(super) fn head(&self) -> RequestHead<'_> {
        RequestHead { method: &self.method, uri: &self.uri, headers: &self.headers }
    }

    /// For people.
    pub(super) fn view(&self) -> RequestView {
        let headers = self.headers.iter().map(|(name, value)| HeaderField {
            name: name.to_string(),
            value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
        });
        RequestView {
            method: self.method.to_string(),
            path: self.uri.to_string(),
            headers: headers.collect(),
        }
    }
}

fn host_and_port(text: &str) -> Result<(String, Option<u16>), String> {
    let expected = || format!("must be a host and perhaps a port, such as \"payments.demo:80\", is {text:?}");
    let authority: http::uri::Authority = text.parse().map_err(|_| expected())?;
    let named_port = text.len() > authority.host().len();
    if text.contains('@') || authority.host().is_empty() || (named_port && authority.port_u16().is_none()) {
        return Err(expected());
    }
    let host = authority.host().trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
    Ok((host, authority.port_u16()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_question_is_told() {
        let question = ExplainRequest {
            from: String::new(),
            to: "pay ments".into(),
            method: Some("GE T".into()),
            path: Some("x".into()),
            headers: vec![HeaderField { name: "a b".into(), value: String::new() }],
            grpc: None,
        };
        let faults = Asked::read(&question).expect_err("nothing in it is right");
        let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["from", "to", "headers[0].name", "method", "path"]);
    }

    #[test]
    fn hosts_are_taken_as_applications_write_them() {
        for (text, host, port) in [
            ("payments", "payments", None),
            ("Payments.demo:80", "payments.demo", Some(80)),
            ("payments.demo.mesh.", "payments.demo.mesh", None),
            ("[fd00::1]:80", "fd00::1", Some(80)),
            ("240.240.0.1", "240.240.0.1", None),
        ] {
            assert_eq!(host_and_port(text), Ok((host.to_owned(), port)), "{text}");
        }
        for wrong in ["", "a:b", "a:70000", "u@a", "http://a", "a/b"] {
            assert!(host_and_port(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_path_is_matched_as_sidecars_spell_it() {
        let read = |path: &str| {
            let (from, to) = ("web.demo".to_owned(), "pay.demo".to_owned());
            Asked::read(&ExplainRequest { from, to, path: Some(path.into()), ..ExplainRequest::default() })
        };
        let asked = read("/x/../%61dmin?q=%61").expect("a question");
        assert_eq!((asked.head().uri.path(), &*asked.view().path), ("/admin", "/admin?q=%61"));
        let faults = read("/a%00").expect_err("no sidecar takes it");
        assert_eq!(faults[0].field, "path");
    }

    #[test]
    fn a_grpc_call_is_what_its_client_sends() {
        let question = ExplainRequest {
            from: "web.demo".into(),
            to: "pay.demo".into(),
            grpc: Some("pay.v1.Pay/Charge".into()),
            ..ExplainRequest::default()
        };
        let asked = Asked::read(&question).expect("a question");
        let head = asked.head();
        assert_eq!((head.method.as_str(), head.uri.path()), ("POST", "/pay.v1.Pay/Charge"));
        assert_eq!(head.headers["content-type"], "application/grpc");
    }
}
