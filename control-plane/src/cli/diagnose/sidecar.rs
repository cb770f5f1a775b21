//! What a sidecar itself says, at its operators' port, as far as it can be reached from here.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::client::innermost;

/// For one answer; a sidecar that works answers within milliseconds.
const ANSWER: Duration = Duration::from_secs(5);
/// Of one answer. The metrics of a large mesh's sidecar are a few MiB.
const MOST: usize = 16 << 20;

/// Everything, or why not.
pub(super) async fn ask(address: &str) -> Value {
    if address.is_empty() {
        return json!({
            "notRead": "the control plane does not know its operators' port, or that listens on loopback of another host only",
            "instead": "there: curl 127.0.0.1:15020/config, also /endpoints, /ready and /metrics; look for secrets before sharing",
        });
    }
    // It is not the server's: no token goes there, and nowhere else either.
    let client = reqwest::Client::builder()
        .tls_certs_only([])
        .timeout(ANSWER)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build();
    let client = match client {
        Ok(client) => client,
        Err(error) => return json!({ "address": address, "notRead": error.to_string() }),
    };
    let get = async |path: &str| read(&client, &format!("http://{address}/{path}")).await;
    let (ready, config, endpoints, metrics) =
        tokio::join!(get("ready"), get("config"), get("endpoints"), get("metrics"));
    let ready = ready.map(|(status, text)| json!({ "status": status, "says": text.trim() }));
    let config = config.and_then(|(_, text)| {
        serde_saphyr::from_str::<Value>(&text).map_err(|error| format!("is not understood: {error}"))
    });
    let endpoints = endpoints.and_then(|(_, text)| {
        serde_json::from_str::<Value>(&text).map_err(|error| format!("is not understood: {error}"))
    });
    // A line each, for people to read.
    let metrics = metrics.map(|(_, text)| text.lines().collect());
    json!({
        "address": address,
        "ready": or_why(ready),
        "config": or_why(config),
        "endpoints": or_why(endpoints),
        "metrics": or_why(metrics),
    })
}

fn or_why(answer: Result<Value, String>) -> Value {
    answer.unwrap_or_else(|why| json!({ "notRead": why }))
}

/// Its status and text.
async fn read(client: &reqwest::Client, url: &str) -> Result<(u16, String), String> {
    let failed = |error: reqwest::Error| innermost(&error);
    let mut response = client.get(url).send().await.map_err(failed)?;
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if text.len() + chunk.len() > MOST {
            return Err(format!("is larger than {} MiB", MOST >> 20));
        }
        text.extend_from_slice(&chunk);
    }
    Ok((response.status().as_u16(), String::from_utf8_lossy(&text).into_owned()))
}
