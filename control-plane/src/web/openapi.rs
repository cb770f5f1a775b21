//! The API's description: `/openapi.json` for tools, `/docs` for people.

use std::fmt::Write as _;

use axum::{Json, Router, response::Html, routing::get};
use serde_json::Value;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use crate::{
    resource::{Kind, schema},
    tap::{TapEnded, TapStatus},
};

#[derive(OpenApi)]
#[openapi(
    info(title = "pillion control plane", description = "Documents of a mesh: what is wanted, and what is."),
    // Those that stand in streams only.
    components(schemas(TapStatus, TapEnded)),
    modifiers(&BearerToken),
)]
struct Base;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API token; the first is in admin.token of the server's data directory"))
            .build();
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// What does not come from the handlers.
pub(super) fn base() -> utoipa::openapi::OpenApi {
    Base::openapi()
}

/// Serves the description, which is made once.
pub(super) fn router<S: Clone + Send + Sync + 'static>(description: &utoipa::openapi::OpenApi) -> Router<S> {
    let mut description = serde_json::to_value(description).expect("a description has string keys only");
    for kind in Kind::ALL {
        description["components"]["schemas"][kind.name()] = schema::schema(kind).clone();
    }
    let page = page(&description);
    Router::new()
        .route("/openapi.json", get(move || std::future::ready(Json(description.clone()))))
        .route("/docs", get(move || std::future::ready(Html(page.clone()))))
}

fn page(description: &Value) -> String {
    let mut page = String::from(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>pillion API</title><style>:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}\
         body{max-width:60rem;margin:2rem auto;padding:0 1rem}code{font-size:.95em}section{border-top:1px solid #8884;\
         padding:.5rem 0}h2{font-size:1rem;margin:.5rem 0}</style><h1>pillion API</h1>\
         <p>For tools: <a href='/openapi.json'>openapi.json</a>. Documents are YAML or JSON; every refusal is an RFC 9457 \
         problem document that lists all faults. Changes need <code>authorization: Bearer &lt;token&gt;</code>.</p>",
    );
    let none = serde_json::Map::new();
    for (path, methods) in description["paths"].as_object().unwrap_or(&none) {
        for (method, operation) in methods.as_object().unwrap_or(&none) {
            let token = if operation.get("security").is_some() { " · needs a token" } else { "" };
            let summary = operation["summary"].as_str().unwrap_or_default();
            let (method, path) = (escape(&method.to_uppercase()), escape(path));
            write!(page, "<section><h2><code>{method} {path}</code>{token}</h2><p>{}</p>", escape(summary))
                .expect("a String takes what is written");
            list_parameters(&mut page, &operation["parameters"]);
            page.push_str("</section>");
        }
    }
    page
}

fn list_parameters(page: &mut String, parameters: &Value) {
    let described: Vec<(&str, &str, &str)> = parameters
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|it| Some((it["in"].as_str()?, it["name"].as_str()?, it["description"].as_str()?)))
        .collect();
    if described.is_empty() {
        return;
    }
    page.push_str("<ul>");
    for (place, name, text) in described {
        write!(page, "<li><code>{}</code> ({}): {}</li>", escape(name), escape(place), escape(text))
            .expect("a String takes what is written");
    }
    page.push_str("</ul>");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
