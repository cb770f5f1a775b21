//! One Compose service that gets a sidecar.

use super::{
    BEFORE, MARK, added, condition, confined, control_plane, depends_on,
    networks::{aliased, move_sysctls, relinked},
    ports,
};
use crate::{
    inject::{
        Node, Object, Options,
        node::{list, object},
        sidecar::{self, ServedPort, TOKEN_FOLDER, USER, Workload},
        tuning::{Place, Tuning},
    },
    resource::{Faults, Path},
};

/// What belongs to the network namespace, and so goes with it.
const MOVED: [&str; 13] = [
    "networks",
    "network_mode",
    "ports",
    "expose",
    "hostname",
    "domainname",
    "dns",
    "dns_search",
    "dns_opt",
    "extra_hosts",
    "mac_address",
    "links",
    "external_links",
];
/// What else of a service is changed.
const CHANGED: [&str; 2] = ["depends_on", "sysctls"];
/// For the sidecar to end after its drain.
const END_SECONDS: u64 = 5;
/// The sidecar's own default.
const DRAIN_SECONDS: u64 = 30;

/// A service, read.
pub(super) struct Member {
    /// In the file.
    pub(super) name: String,
    /// To the mesh: a DNS label, the name of its service, workload and service account.
    pub(super) workload: String,
    /// The networks it is on; none where it has a network mode.
    pub(super) networks: Vec<String>,
    pub(super) notes: Vec<String>,
    ports: Vec<ServedPort>,
    tuning: Tuning,
}

impl Member {
    /// Reads a service.
    ///
    /// # Errors
    /// Why it gets no sidecar.
    pub(super) fn read(name: &str, service: &Object, at: &Path, faults: &mut Faults) -> Result<Self, String> {
        let tuning = tuning(service, at, faults);
        if tuning.disabled {
            return Err("pillion.dev/inject is disabled".into());
        }
        let mode = service.get("network_mode").and_then(Node::text).unwrap_or_default();
        if let Some(other) = mode.strip_prefix("service:") {
            return Err(format!("it shares the network of {other:?}, and its sidecar if that has one"));
        }
        if matches!(mode, "host" | "none") || mode.starts_with("container:") {
            return Err(format!("its network_mode is {mode}"));
        }
        if service.get("extends").is_some() {
            let message = "hides what the service is made of: inject what `docker-compose config` prints";
            faults.add(&at.field("extends"), message);
        }
        for (way, at) in [
            (&["scale"][..], at.field("scale")),
            (&["deploy", "replicas"], at.field("deploy").field("replicas")),
        ] {
            let count = service.get(way[0]).and_then(|node| node.at(&way[1..])).and_then(Node::whole);
            if count.is_some_and(|count| count > 1) {
                faults.add(
                    &at,
                    "Compose cannot give each of several containers a sidecar: write several services",
                );
            }
        }
        let user = service.get("user").and_then(Node::scalar).unwrap_or_default();
        if user.split(':').next() == Some(&USER.to_string()) {
            faults.add(
                &at.field("user"),
                format!("{USER} is the sidecar's user, whose traffic is not redirected"),
            );
        }
        check_shapes(service, at, faults);
        let mut notes = Vec::new();
        let ports = ports::served(service, at, faults, &mut notes);
        if ports.is_empty() {
            notes.push("names no port in `expose` or `ports`: others cannot call it through the mesh".into());
        }
        let networks = match (mode, service.get("networks")) {
            ("", None | Some(Node::Null)) => vec!["default".into()],
            ("", Some(Node::List(names))) => {
                names.iter().filter_map(|name| Some(name.text()?.to_owned())).collect()
            }
            ("", Some(Node::Object(networks))) => networks.iter().map(|(name, _)| name.to_owned()).collect(),
            _ => {
                notes.push(format!("with network_mode {mode}, no other service finds it by its name"));
                Vec::new()
            }
        };
        Ok(Self { name: name.to_owned(), workload: workload(name), networks, notes, ports, tuning })
    }

    /// Names of the services that come with it.
    pub(super) fn helpers(&self) -> [String; 3] {
        [self.holder(), self.sidecar(), self.ready()]
    }

    /// Who has its network.
    pub(super) fn holder(&self) -> String {
        format!("{}-pillion-net", self.name)
    }

    fn sidecar(&self) -> String {
        format!("{}-pillion", self.name)
    }

    /// What only its sidecar sees, and who fills it.
    pub(super) fn token_volume(&self) -> String {
        format!("{}-pillion-token", self.name)
    }

    fn ready(&self) -> String {
        format!("{}-pillion-ready", self.name)
    }

    fn network_mode(&self) -> String {
        format!("service:{}", self.holder())
    }

    /// Its labels in the mesh.
    fn labels(&self) -> String {
        self.tuning.labels.clone().unwrap_or_else(|| format!("app={}", self.workload))
    }

    /// Puts it and its helpers into the services of the result.
    pub(super) fn write(&self, service: Node, members: &[Self], options: &Options, services: &mut Object) {
        let Node::Object(mut service) = service else { unreachable!("a member is an object") };
        let before = before(&service);
        let holder = self.write_holder(&mut service, members, options);
        let mut conditions = depends_on(service.get("depends_on"));
        conditions.set(self.ready(), condition("service_completed_successfully"));
        service.set("network_mode", self.network_mode());
        service.set("depends_on", conditions);
        service.set(MARK, object([(BEFORE, before.into())]));

        let profiles = service.get("profiles").cloned();
        services.set(self.name.clone(), service);
        for (name, mut helper) in [
            (self.holder(), holder),
            (self.sidecar(), self.write_sidecar(options)),
            (self.ready(), self.write_ready(options)),
        ] {
            if let Some(profiles) = &profiles {
                helper.set("profiles", profiles.clone());
            }
            added(&mut helper);
            services.set(name, helper);
        }
    }

    /// Takes over what belongs to the network namespace.
    fn write_holder(&self, service: &mut Object, members: &[Self], options: &Options) -> Object {
        let mut holder = Object::default();
        holder.set("image", options.redirect_image.as_str());
        holder.set("command", list(sidecar::redirect(&self.tuning).into_iter().chain(["--hold".to_owned()])));
        confined(&mut holder, 0);
        holder.set("cap_add", list(["NET_ADMIN", "NET_RAW"]));
        holder.set("restart", "unless-stopped");
        let container = service.get("container_name").and_then(Node::text).map(str::to_owned);
        let aliases = [Some(self.name.as_str()), container.as_deref()];
        for name in MOVED {
            match service.remove(name) {
                Some(networks) if name == "networks" => holder.set(name, aliased(&networks, &aliases)),
                Some(links) if name == "links" => holder.set(name, relinked(&links, members)),
                Some(moved) => holder.set(name, moved),
                None => {}
            }
        }
        if !self.networks.is_empty() && holder.get("networks").is_none_or(Node::is_empty) {
            holder.set("networks", aliased(&list(["default"]), &aliases));
        }
        move_sysctls(service, &mut holder);
        holder
    }

    fn write_sidecar(&self, options: &Options) -> Object {
        let token_file = format!("{TOKEN_FOLDER}/token");
        let workload = Workload {
            labels: self.labels(),
            ports: &self.ports,
            control_plane: options.control_plane.as_deref().unwrap_or(control_plane::ADDRESS),
            token_file: &token_file,
            drain_timeout: self.tuning.drain_timeout,
            ..Workload::default()
        };
        let mut environment = Object::default();
        environment.set("PILLION_WORKLOAD", self.workload.as_str());
        for (name, value) in sidecar::environment(&workload, &self.tuning) {
            environment.set(name, value);
        }
        let mut dependencies = Object::default();
        dependencies.set(self.holder(), condition("service_started"));
        let volume = match &options.join_token_file {
            Some(file) => object([
                ("type", "bind".into()),
                ("source", file.replace("{service}", &self.name).into()),
                ("target", token_file.into()),
                ("read_only", true.into()),
            ]),
            None => {
                dependencies.set(control_plane::JOIN, condition("service_completed_successfully"));
                format!("{}:{TOKEN_FOLDER}:ro", self.token_volume()).into()
            }
        };
        let drain = self.tuning.drain_timeout.map_or(DRAIN_SECONDS, |timeout| timeout.as_secs() + 1);
        let mut proxy = Object::default();
        proxy.set("image", options.proxy_image.as_str());
        proxy.set("network_mode", self.network_mode());
        proxy.set("depends_on", dependencies);
        proxy.set("environment", environment);
        proxy.set("volumes", list([volume]));
        confined(&mut proxy, USER);
        proxy.set("restart", "unless-stopped");
        proxy.set("stop_grace_period", format!("{}s", drain + END_SECONDS));
        proxy
    }

    fn write_ready(&self, options: &Options) -> Object {
        let mut dependencies = Object::default();
        dependencies.set(self.sidecar(), condition("service_started"));
        let mut ready = Object::default();
        ready.set("image", options.proxy_image.as_str());
        ready.set("command", list(["ready", "--wait", "60s"]));
        ready.set("network_mode", self.network_mode());
        ready.set("depends_on", dependencies);
        confined(&mut ready, USER);
        ready
    }

    /// What the mesh is to know of it; nothing where it serves nothing.
    pub(super) fn document(&self, options: &Options) -> Option<Node> {
        let port = |served: &ServedPort| {
            let mut port = Object::default();
            if self.ports.len() > 1 || !served.name.is_empty() {
                let name = Some(served.name.clone()).filter(|name| !name.is_empty());
                port.set("name", name.unwrap_or_else(|| format!("port-{}", served.port)));
            }
            port.set("port", u64::from(served.port));
            if let Some(protocol) = &served.protocol {
                port.set("appProtocol", protocol.as_str());
            }
            Node::Object(port)
        };
        let labels = self.labels();
        let selector = labels.split(',').filter_map(|pair| pair.split_once('='));
        let selector: Object = selector.map(|(key, value)| (key.to_owned(), value.into())).collect();
        (!self.ports.is_empty()).then(|| {
            object([
                ("apiVersion", "v1".into()),
                ("kind", "Service".into()),
                (
                    "metadata",
                    object([
                        ("name", self.workload.as_str().into()),
                        ("namespace", options.namespace.as_str().into()),
                    ]),
                ),
                (
                    "spec",
                    object([("selector", selector.into()), ("ports", list(self.ports.iter().map(port)))]),
                ),
            ])
        })
    }
}

/// What of a service may be changed, as it is.
fn before(service: &Object) -> Object {
    let known = |name: &str| MOVED.contains(&name) || CHANGED.contains(&name);
    service
        .iter()
        .filter(|(name, _)| known(name))
        .map(|(name, node)| (name.to_owned(), node.clone()))
        .collect()
}

/// Makes a service again what it was.
pub(super) fn give_back(service: &mut Object, before: Object) {
    for name in MOVED.into_iter().chain(CHANGED) {
        service.remove(name);
    }
    before.into_iter().for_each(|(name, node)| service.set(name, node));
}

/// Leads a service without a sidecar to the networks where the others are now.
pub(super) fn rejoin(service: &mut Object, members: &[Member]) {
    let was = before(service);
    let mode =
        service.get("network_mode").and_then(Node::text).and_then(|mode| mode.strip_prefix("service:"));
    if let Some(member) = members.iter().find(|member| Some(member.name.as_str()) == mode) {
        service.set("network_mode", member.network_mode());
        let mut conditions = depends_on(service.get("depends_on"));
        conditions.set(member.ready(), condition("service_completed_successfully"));
        service.set("depends_on", conditions);
    }
    if let Some(links) = service.get("links") {
        let links = relinked(links, members);
        service.set("links", links);
    }
    if before(service) != was {
        service.set(MARK, object([(BEFORE, was.into())]));
    }
}

fn tuning(service: &Object, at: &Path, faults: &mut Faults) -> Tuning {
    let labels: Vec<(&str, Option<String>)> = match service.get("labels") {
        Some(Node::Object(labels)) => labels.iter().map(|(name, value)| (name, value.scalar())).collect(),
        Some(Node::List(labels)) => labels
            .iter()
            .filter_map(Node::text)
            .map(|label| {
                let (name, value) = label.split_once('=').unwrap_or((label, ""));
                (name, Some(value.to_owned()))
            })
            .collect(),
        _ => Vec::new(),
    };
    Tuning::read(labels.into_iter(), Place::Compose, &at.field("labels"), faults)
}

fn check_shapes(service: &Object, at: &Path, faults: &mut Faults) {
    for (name, forms) in [
        ("networks", "a list or an object"),
        ("depends_on", "a list or an object"),
        ("sysctls", "a list or an object"),
        ("ports", "a list"),
        ("expose", "a list"),
        ("links", "a list"),
    ] {
        let fits = match service.get(name) {
            None | Some(Node::Null | Node::List(_)) => true,
            Some(Node::Object(_)) => forms.contains("object"),
            Some(_) => false,
        };
        if !fits {
            faults.add(&at.field(name), format!("must be {forms}"));
        }
    }
}

/// The nearest DNS label.
fn workload(name: &str) -> String {
    name.to_ascii_lowercase().replace(['_', '.'], "-")
}
