//! `MeshConfig.spec.accessLog`: which requests and connections sidecars write a line for.

use http::{
    HeaderName,
    header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION},
};
use pillion_api::{model, wire};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    fault::{Faults, Path},
    percent::Percent,
};

/// What is absent has the default. A sidecar's own `accessLog` setting turns it off or changes the format for that one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessLog {
    /// `json`: one object a line; `text`: like Envoy's, for people. Default: json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<LineFormat>,
    /// Of what did not end well, 0 or 0.0001 to 100: answers of 500 and above, the gRPC codes that blame the server, whatever a
    /// sidecar refused or a caller gave up, connections that broke. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_percent: Option<Percent>,
    /// Of all the rest, 0 or 0.0001 to 100. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_percent: Option<Percent>,
    /// Fields of the request that are written, too, such as `user-agent` and `x-request-id`; none that hold credentials. Default:
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<String>>,
    /// Whether the path is written with its query (`full`) or not (`withoutQuery`). Default: withoutQuery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<LoggedPath>,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LineFormat {
    /// One object a line.
    Json,
    /// Like Envoy's, for people.
    Text,
}

/// What of a path is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LoggedPath {
    /// With its query.
    Full,
    /// What is before the query.
    WithoutQuery,
}

/// What nobody is to find in a log.
const SECRET: [HeaderName; 3] = [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE];

impl AccessLog {
    pub(super) fn check(&self, faults: &mut Faults, at: &Path) {
        for (field, percent) in
            [("errorPercent", self.error_percent), ("successPercent", self.success_percent)]
        {
            percent.iter().for_each(|percent| percent.check(faults, &at.field(field), true));
        }
        let headers = self.headers.as_deref().unwrap_or_default();
        faults.check_length(&at.field("headers"), headers.len(), model::AccessLog::MAX_HEADERS);
        let mut seen = Vec::new();
        for (index, name) in headers.iter().enumerate() {
            let at = at.field("headers").index(index);
            match HeaderName::from_bytes(name.as_bytes()) {
                Err(_) => faults.add(&at, format!("is not a header name (RFC 9110): {name:?}")),
                Ok(name) if SECRET.contains(&name) => {
                    faults.add(&at, format!("{name:?} holds credentials, which do not belong into a log"));
                }
                Ok(name) if seen.contains(&name) => {
                    faults.add(&at, format!("{name:?} is in the list already (header names ignore case)"));
                }
                Ok(name) => seen.push(name),
            }
        }
    }

    /// With every default filled in.
    pub(super) fn in_force(&self) -> Self {
        let default = model::AccessLog::default();
        let format = match default.format {
            model::LineFormat::Json => LineFormat::Json,
            model::LineFormat::Text => LineFormat::Text,
        };
        let path = if default.query { LoggedPath::Full } else { LoggedPath::WithoutQuery };
        Self {
            format: Some(self.format.unwrap_or(format)),
            error_percent: Some(self.error_percent.unwrap_or(default.errors.into())),
            success_percent: Some(self.success_percent.unwrap_or(default.successes.into())),
            headers: Some(self.headers.clone().unwrap_or_default()),
            path: Some(self.path.unwrap_or(path)),
        }
    }

    pub(super) fn to_wire(&self) -> wire::AccessLog {
        let Self { format, error_percent, success_percent, headers, path } = self.in_force();
        let format = match format {
            Some(LineFormat::Text) => wire::access_log::Format::Text,
            _ => wire::access_log::Format::Json,
        };
        wire::AccessLog {
            format: format.into(),
            errors_per_million: error_percent.map_or(0, Percent::per_million),
            successes_per_million: success_percent.map_or(0, Percent::per_million),
            headers: headers.unwrap_or_default(),
            query: path == Some(LoggedPath::Full),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::{Kind, schema};

    fn faults(log: serde_json::Value) -> Vec<String> {
        let log: AccessLog = serde_json::from_value(log).expect("of the right shape");
        let mut faults = Faults::default();
        log.check(&mut faults, &Path::root().field("accessLog"));
        faults.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_fault_is_named() {
        assert_eq!(faults(json!({})), [""; 0]);
        let right =
            json!({ "successPercent": 0, "errorPercent": 0.5, "headers": ["user-agent"], "path": "full" });
        assert_eq!(faults(right), [""; 0]);
        let wrong = json!({
            "errorPercent": 101, "successPercent": 0.00001, "headers": ["Cookie", "a b", "x-a", "X-A"],
        });
        let found = faults(wrong);
        let expected = [
            "accessLog.errorPercent: must be 0 or between 0.0001 and 100, is 101",
            "accessLog.successPercent: must be 0 or between",
            "accessLog.headers[0]: \"cookie\" holds credentials",
            "accessLog.headers[1]: is not a header name",
            "accessLog.headers[3]: \"x-a\" is in the list already",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}, not {expected}");
        }
    }

    #[test]
    fn defaults_are_those_of_sidecars_and_documented() {
        let told = model::MeshSettings::try_from(wire::MeshSettings {
            access_log: Some(AccessLog::default().to_wire()),
            ..Default::default()
        });
        let told = told.expect("what we say is understood").access_log.expect("it is on");
        assert_eq!(*told, model::AccessLog::default());
        let in_force = serde_json::to_value(AccessLog::default().in_force()).expect("JSON");
        let fields = &schema::schema(Kind::MeshConfig)["properties"]["spec"]["properties"]["accessLog"];
        for (field, default) in in_force.as_object().expect("an object") {
            let text = fields["properties"][field]["description"].as_str().unwrap_or_default();
            let default = match default {
                serde_json::Value::Array(_) => "none".to_owned(),
                other => other.to_string().replace('"', ""),
            };
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(text.ends_with(&format!("Default: {default}.")), "{field}: {text:?}, not {default}");
        }
    }
}
