//! What an injection puts into a pod: two containers and a volume.

use crate::inject::{
    Node, Object, Options,
    node::{list, object},
    sidecar::{self, ADMIN_PORT, PROGRAM, TOKEN_FOLDER, USER, Workload},
    tuning::Tuning,
};

/// The sidecar's container.
pub(super) const PROXY: &str = "pillion-proxy";
/// The container that installs the redirection.
pub(super) const REDIRECT: &str = "pillion-redirect";
/// The volume with what the workload proves itself with.
pub(super) const TOKEN: &str = "pillion-token";

pub(super) fn proxy_container(workload: &Workload<'_>, tuning: &Tuning, options: &Options) -> Node {
    let own = |path: &str| object([("fieldRef", object([("fieldPath", path.into())]))]);
    let mut environment =
        vec![object([("name", "PILLION_WORKLOAD".into()), ("valueFrom", own("metadata.name"))])];
    for (name, value) in sidecar::environment(workload, tuning) {
        environment.push(object([("name", name.into()), ("value", value.into())]));
    }
    let ready = |seconds: u64, failures: u64| {
        object([
            ("httpGet", object([("path", "/ready".into()), ("port", u64::from(ADMIN_PORT).into())])),
            ("periodSeconds", seconds.into()),
            ("failureThreshold", failures.into()),
        ])
    };
    object([
        ("name", PROXY.into()),
        ("image", options.proxy_image.as_str().into()),
        ("restartPolicy", "Always".into()),
        ("env", Node::List(environment)),
        (
            "ports",
            list([object([
                ("name", "pillion-admin".into()),
                ("containerPort", u64::from(ADMIN_PORT).into()),
            ])]),
        ),
        ("startupProbe", ready(1, 60)),
        ("readinessProbe", ready(5, 2)),
        ("resources", resources(tuning)),
        ("securityContext", security(USER, &[])),
        (
            "volumeMounts",
            list([object([
                ("name", TOKEN.into()),
                ("mountPath", TOKEN_FOLDER.into()),
                ("readOnly", true.into()),
            ])]),
        ),
    ])
}

pub(super) fn redirect_container(tuning: &Tuning, options: &Options) -> Node {
    object([
        ("name", REDIRECT.into()),
        ("image", options.redirect_image.as_str().into()),
        ("command", list([PROGRAM])),
        ("args", list(sidecar::redirect(tuning))),
        ("resources", resources(tuning)),
        ("securityContext", security(0, &["NET_ADMIN", "NET_RAW"])),
    ])
}

/// Little, and no limit on CPU: one that is reached shows as latency of every request.
fn resources(tuning: &Tuning) -> Node {
    let mut resources = Object::default();
    for (kind, what, default) in [
        ("requests", "cpu", Some("10m")),
        ("requests", "memory", Some("32Mi")),
        ("limits", "cpu", None),
        ("limits", "memory", Some("256Mi")),
    ] {
        let value = tuning.resources.get(&(kind, what)).map(String::as_str).or(default);
        if let (Some(value), Node::Object(of_kind)) =
            (value, resources.or_set(kind, Node::Object(Object::default())))
        {
            of_kind.set(what, value);
        }
    }
    Node::Object(resources)
}

fn security(user: u64, capabilities: &[&str]) -> Node {
    let mut of_capabilities = Object::default();
    of_capabilities.set("drop", list(["ALL"]));
    if !capabilities.is_empty() {
        of_capabilities.set("add", list(capabilities.iter().copied()));
    }
    object([
        ("runAsUser", user.into()),
        ("runAsGroup", user.into()),
        ("runAsNonRoot", (user != 0).into()),
        ("allowPrivilegeEscalation", false.into()),
        ("privileged", false.into()),
        ("readOnlyRootFilesystem", true.into()),
        ("capabilities", Node::Object(of_capabilities)),
        ("seccompProfile", object([("type", "RuntimeDefault".into())])),
    ])
}

/// What the workload proves itself with.
pub(super) fn token_volume(tuning: &Tuning) -> Node {
    match &tuning.join_token_secret {
        Some(secret) => object([
            ("name", TOKEN.into()),
            (
                "secret",
                object([
                    ("secretName", secret.as_str().into()),
                    ("items", list([object([("key", "token".into()), ("path", "token".into())])])),
                ]),
            ),
        ]),
        None => object([
            ("name", TOKEN.into()),
            (
                "projected",
                object([(
                    "sources",
                    list([object([(
                        "serviceAccountToken",
                        object([
                            ("audience", "pillion".into()),
                            ("expirationSeconds", 3600.into()),
                            ("path", "token".into()),
                        ]),
                    )])]),
                )]),
            ),
        ]),
    }
}
