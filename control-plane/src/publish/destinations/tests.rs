//! What leads where, and that the kept index says what one made anew would say.

use std::sync::Arc;

use pillion_api::wire::{self, Hello, WorkloadPort};
use proptest::prelude::*;

use super::*;
use crate::{
    compile::{Assembly, Workload},
    publish::{LastCompile, Publisher},
    resource::{Documents, admit, text},
};

const DOCUMENTS: &str = "
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: demo}, spec: {clusterIP: 240.240.0.1, selector: {app: web},
 ports: [{name: http, port: 80, targetPort: 8080}, {name: admin, port: 81, targetPort: 8081}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: all, namespace: demo}, spec: {clusterIP: None, selector: {tier: front},
 ports: [{port: 8080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: 240.240.0.2, ports: [{port: 80}]}}
---
{apiVersion: pillion.dev/v1alpha1, kind: ExternalService, metadata: {name: api, namespace: demo}, spec:
 {clusterIP: 240.240.0.3, host: api.example.com, ports: [{port: 443}]}}
---
{apiVersion: pillion.dev/v1alpha1, kind: ExternalService, metadata: {name: short, namespace: shop}, spec:
 {clusterIP: None, host: web.shop, ports: [{port: 443}]}}
";

fn documents(yaml: &str) -> Documents {
    let mut documents = Documents::default();
    for (index, written) in text::read(yaml, text::Format::Yaml).expect("YAML").iter().enumerate() {
        documents.insert(admit::admit(index, written, None).expect("admitted"));
    }
    documents
}

fn workload(uid: &str, address: &str, labels: &[(&str, &str)], ports: &[u32]) -> Workload {
    Workload {
        hello: Hello {
            instance_uid: uid.to_owned(),
            workload: uid.to_owned(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ports: ports.iter().map(|port| WorkloadPort { port: *port, name: String::new() }).collect(),
            inbound_address: address.to_owned(),
            ..Hello::default()
        },
        spiffe_id: format!("spiffe://mesh.local/ns/demo/sa/{uid}"),
        namespace: "demo".to_owned(),
    }
}

fn publisher(workloads: &[Workload]) -> Publisher {
    let workloads = workloads.iter().map(|workload| Arc::new(workload.clone()));
    let assembly = Assembly::new(&documents(DOCUMENTS), workloads);
    Publisher::new(assembly.everything(), LastCompile::default())
}

/// The service, its port, and the UID or the virtual address.
fn ask(publisher: &Publisher, destination: Destination, namespace: &str) -> (String, u32, String) {
    let question = Resolve { destination: Some(destination) };
    let resolved = publisher.resolve(question.clone(), namespace);
    assert_eq!(resolved.question, Some(question), "as it was asked");
    (resolved.service, resolved.port, resolved.uid + &resolved.virtual_address)
}

fn address(publisher: &Publisher, address: &str) -> (String, u32, String) {
    ask(publisher, Destination::Address(address.to_owned()), "demo")
}

fn is(service: &str, port: u32, rest: &str) -> (String, u32, String) {
    (service.to_owned(), port, rest.to_owned())
}

#[test]
fn virtual_addresses_lead_to_their_services() {
    let publisher = publisher(&[]);
    assert_eq!(address(&publisher, "240.240.0.1:80"), is("web.demo", 80, ""));
    assert_eq!(address(&publisher, "240.240.0.1:9"), is("web.demo", 9, ""), "be there such a port or not");
    assert_eq!(address(&publisher, "[::ffff:240.240.0.2]:80"), is("web.shop", 80, ""));
    assert_eq!(address(&publisher, "240.240.0.3:443"), is("api.demo", 443, ""));
    for unknown in ["240.240.0.4:80", "10.0.0.1:80", "[fd00::1]:80", "nonsense", ""] {
        assert_eq!(address(&publisher, unknown), is("", 0, ""), "{unknown}");
    }
}

#[test]
fn the_address_of_a_workload_leads_to_it_by_the_service_that_has_the_port() {
    let publisher = publisher(&[
        workload("a", "10.1.0.1:15006", &[("app", "web"), ("tier", "front")], &[8080]),
        workload("b", "[fd00::2]:15006", &[("app", "web")], &[8080]),
        workload("lone", "10.1.0.3:15006", &[("app", "lone")], &[8080]),
        workload("home", "127.0.0.1:15006", &[("app", "web")], &[8080]),
        workload("any", "0.0.0.0:15006", &[("app", "web")], &[8080]),
    ]);
    assert_eq!(address(&publisher, "10.1.0.1:8080"), is("all.demo", 8080, "a"), "the first by name");
    assert_eq!(address(&publisher, "10.1.0.1:8081"), is("web.demo", 81, "a"));
    assert_eq!(address(&publisher, "[fd00::2]:8080"), is("web.demo", 80, "b"));
    for unknown in ["10.1.0.1:80", "10.1.0.3:8080", "127.0.0.1:8080", "0.0.0.0:8080", "10.1.0.9:8080"] {
        assert_eq!(address(&publisher, unknown), is("", 0, ""), "{unknown}");
    }
}

#[test]
fn of_workloads_that_share_an_address_only_the_one_that_says_so_is_meant() {
    let labels = &[("app", "web")];
    let shared = [
        workload("a", "10.1.0.1:15006", labels, &[8080]),
        workload("b", "10.1.0.1:15016", labels, &[9090]),
        workload("other", "10.1.0.1:15026", &[("app", "other")], &[8080]),
    ];
    let all = publisher(&shared);
    assert_eq!(address(&all, "10.1.0.1:8080"), is("web.demo", 80, "a"));
    assert_eq!(address(&all, "10.1.0.1:8081"), is("", 0, ""), "neither of the two says that it is there");
    let both = publisher(&[shared[0].clone(), workload("c", "10.1.0.1:15036", labels, &[8080])]);
    assert_eq!(address(&both, "10.1.0.1:8080"), is("web.demo", 80, ""), "both say so, of one service");
    let claimed = publisher(&[
        shared[0].clone(),
        workload("c", "10.1.0.1:15036", &[("app", "web"), ("tier", "front")], &[8080]),
    ]);
    assert_eq!(address(&claimed, "10.1.0.1:8080"), is("web.demo", 80, "a"), "never one outside");
}

#[test]
fn hosts_lead_to_services_of_the_mesh_first() {
    let publisher = publisher(&[]);
    let host = |host: &str, namespace: &str| ask(&publisher, Destination::Host(host.to_owned()), namespace);
    for (name, namespace, service, virtual_address) in [
        ("web", "demo", "web.demo", "240.240.0.1"),
        ("web", "shop", "web.shop", "240.240.0.2"),
        ("web.shop", "demo", "web.shop", "240.240.0.2"),
        ("web.demo.mesh", "shop", "web.demo", "240.240.0.1"),
        ("web.demo.svc.cluster.local", "shop", "web.demo", "240.240.0.1"),
        ("all", "demo", "all.demo", ""),
        ("api.example.com", "shop", "api.demo", "240.240.0.3"),
        ("api", "demo", "api.demo", "240.240.0.3"),
        ("api", "shop", "", ""),
        ("web", "other", "", ""),
        ("example.com", "demo", "", ""),
        ("a_b", "demo", "", ""),
        ("", "demo", "", ""),
    ] {
        assert_eq!(host(name, namespace), is(service, 0, virtual_address), "{name} in {namespace}");
    }
}

#[test]
fn what_changes_leads_elsewhere_at_once() {
    let web =
        |uid: &str, ip: &str| Arc::new(workload(uid, &format!("{ip}:15006"), &[("app", "web")], &[8080]));
    let mut assembly = Assembly::new(&documents(DOCUMENTS), [web("a", "10.1.0.1")]);
    let publisher = Publisher::new(assembly.everything(), LastCompile::default());
    // Another workload has its address now, and it is elsewhere.
    let moved = [("a".to_owned(), Some(web("a", "10.1.0.2"))), ("b".to_owned(), Some(web("b", "10.1.0.1")))];
    publisher.publish(assembly.change(moved), LastCompile::default());
    assert_eq!(address(&publisher, "10.1.0.1:8080"), is("web.demo", 80, "b"));
    assert_eq!(address(&publisher, "10.1.0.2:8080"), is("web.demo", 80, "a"));
    // Other documents, and one workload less.
    let other = DOCUMENTS.replace("240.240.0.1", "240.240.0.9").replace("8080", "8888");
    let changed = assembly.replace(&documents(&other), [("b".to_owned(), None)]);
    assert_eq!(changed.settings, None, "nothing else holds for the mesh");
    publisher.publish(changed, LastCompile::default());
    assert_eq!(address(&publisher, "240.240.0.9:80"), is("web.demo", 80, ""));
    assert_eq!(address(&publisher, "10.1.0.2:8888"), is("web.demo", 80, "a"));
    for gone in ["240.240.0.1:80", "10.1.0.2:8080", "10.1.0.1:8888"] {
        assert_eq!(address(&publisher, gone), is("", 0, ""), "{gone}");
    }
    publisher.publish(assembly.replace(&Documents::default(), []), LastCompile::default());
    let state = publisher.state();
    let Destinations { virtual_addresses, hosts, workloads, located } = &state.destinations;
    assert!(virtual_addresses.0.is_empty() && hosts.0.is_empty(), "nothing is left of services");
    assert_eq!((workloads.len(), located.len()), (1, 1), "the workload is still there");
}

#[test]
fn the_mesh_s_settings_are_told_when_they_change() {
    let config = |outbound: &str| {
        documents(&format!(
            "{{apiVersion: pillion.dev/v1alpha1, kind: MeshConfig, metadata: {{name: mesh}}, spec: {{outbound: {outbound}}}}}"
        ))
    };
    let mut assembly = Assembly::new(&Documents::default(), []);
    let publisher = Publisher::new(assembly.everything(), LastCompile::default());
    let mut settings = publisher.settings();
    assert_eq!(settings.borrow_and_update().service_cidr, "240.240.0.0/16");
    publisher.publish(assembly.replace(&config("allowAny"), []), LastCompile::default());
    assert!(!settings.has_changed().expect("it is there"), "the default, in words");
    publisher.publish(assembly.replace(&config("registryOnly"), []), LastCompile::default());
    assert!(settings.has_changed().expect("it is there"));
    assert_eq!(settings.borrow_and_update().outbound(), wire::mesh_settings::Outbound::RegistryOnly);
}

proptest! {
    /// Workloads come, move and go: every question has the answer that an index made anew gives.
    #[test]
    fn the_index_is_as_if_made_anew(steps in prop::collection::vec((0_u8..6, 0_u8..4, any::<bool>()), 1..40)) {
        let mut assembly = Assembly::new(&documents(DOCUMENTS), []);
        let publisher = Publisher::new(assembly.everything(), LastCompile::default());
        for (uid, ip, serves) in steps {
            let uid = format!("w{uid}");
            let labels: &[(&str, &str)] = if serves { &[("app", "web")] } else { &[] };
            let member = (ip > 0).then(|| Arc::new(workload(&uid, &format!("10.1.0.{ip}:15006"), labels, &[8080])));
            publisher.publish(assembly.change([(uid, member)]), LastCompile::default());
            let anew = Publisher::new(assembly.everything(), LastCompile::default());
            for ip in 0..4 {
                let question = format!("10.1.0.{ip}:8080");
                prop_assert_eq!(address(&publisher, &question), address(&anew, &question));
            }
        }
    }
}
