//! What a sidecar says of itself, checked: every fault at once.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use pillion_api::{
    model::MAX_WEIGHT,
    name::{is_label, is_label_key, is_label_value, is_port_name},
    wire::{Health, Hello, WorkloadPort},
};

use crate::said;

const MAX_UID: usize = 128;
const MAX_LABELS: usize = 64;
const MAX_PORTS: usize = 256;
/// Of a version or zone.
const MAX_WORD: usize = 63;
/// Of a reason that is shown to people.
const MAX_REASON: usize = 300;

/// The same with its addresses completed: an unspecified IP address (a sidecar that listens on all) is replaced by the one
/// that its stream comes from; for its operators' port by the one at which others reach its sidecar. An operators' port that only
/// the sidecar's own host can reach, which is another one, is left out.
///
/// # Errors
/// Every fault, in plain words.
pub(super) fn check(mut hello: Hello, peer: IpAddr) -> Result<Hello, Vec<String>> {
    let mut faults = Vec::new();
    if !is_uid(&hello.instance_uid) {
        faults.push(format!(
            "instance_uid must be 1 to {MAX_UID} of A-Z, a-z, 0-9, '.', '_' and '-', is {:?}",
            start(&hello.instance_uid)
        ));
    }
    if !is_label(&hello.workload) {
        faults.push(format!("workload must be a DNS label (RFC 1123), is {:?}", start(&hello.workload)));
    }
    check_labels(&hello, &mut faults);
    check_ports(&hello.ports, &mut faults);
    match hello.inbound_address.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => {
            let ip = if address.ip().is_unspecified() { peer.to_canonical() } else { address.ip() };
            hello.inbound_address = SocketAddr::new(ip, address.port()).to_string();
        }
        _ => faults.push(format!(
            "inbound_address must be an IP address and a port other than 0, is {:?}",
            start(&hello.inbound_address)
        )),
    }
    match hello.admin_address.as_str() {
        "" => {}
        said => match said.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => {
                hello.admin_address = reachable(address, &hello, peer).unwrap_or_default();
            }
            _ => faults.push(format!(
                "admin_address must be an IP address and a port other than 0, is {:?}",
                start(said)
            )),
        },
    }
    for (field, value) in [("version", &hello.version), ("zone", &hello.zone)] {
        if value.len() > MAX_WORD || value.chars().any(char::is_control) {
            let value = start(value);
            faults.push(format!("{field} must be at most {MAX_WORD} printable characters, is {value:?}"));
        }
    }
    if hello.weight > MAX_WEIGHT {
        faults.push(format!("weight must be at most {MAX_WEIGHT}, is {}", hello.weight));
    }
    hello.health = hello.health.map(health);
    if faults.is_empty() { Ok(hello) } else { Err(faults) }
}

/// Where others find a sidecar's operators' port, of which it has said `address`.
fn reachable(address: SocketAddr, hello: &Hello, peer: IpAddr) -> Option<String> {
    let inbound = hello.inbound_address.parse::<SocketAddr>();
    let ip = match address.ip() {
        ip if ip.is_unspecified() => inbound.map_or(peer.to_canonical(), |inbound| inbound.ip()),
        ip => ip,
    };
    let here = !ip.is_loopback() || peer.to_canonical().is_loopback();
    here.then(|| SocketAddr::new(ip, address.port()).to_string())
}

/// A report of health with its reason cut to a bounded length.
pub(super) fn health(health: Health) -> Health {
    Health { reason: words(&health.reason), ..health }
}

/// A sidecar's words, cut to a bounded length and free of control characters.
pub(super) fn words(text: &str) -> String {
    said::words(text, MAX_REASON)
}

fn is_uid(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MAX_UID).contains(&text.len()) && text.bytes().all(allowed)
}

fn check_labels(hello: &Hello, faults: &mut Vec<String>) {
    if hello.labels.len() > MAX_LABELS {
        faults.push(format!("labels must be at most {MAX_LABELS}, are {}", hello.labels.len()));
        return;
    }
    let mut wrong: Vec<String> = Vec::new();
    for (key, value) in &hello.labels {
        if !is_label_key(key) {
            wrong.push(format!("label key {:?} is not as Kubernetes has them", start(key)));
        }
        if !is_label_value(value) {
            wrong.push(format!(
                "label {:?} has a value not as Kubernetes has them: {:?}",
                start(key),
                start(value)
            ));
        }
    }
    wrong.sort();
    faults.append(&mut wrong);
}

fn check_ports(ports: &[WorkloadPort], faults: &mut Vec<String>) {
    if ports.len() > MAX_PORTS {
        faults.push(format!("ports must be at most {MAX_PORTS}, are {}", ports.len()));
        return;
    }
    let (mut numbers, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in ports.iter().enumerate() {
        if !(1..=u32::from(u16::MAX)).contains(&port.port) {
            faults.push(format!("ports[{index}].port must be from 1 to 65535, is {}", port.port));
        } else if !numbers.insert(port.port) {
            faults.push(format!("ports[{index}].port repeats {}", port.port));
        }
        if port.name.is_empty() {
            continue;
        }
        if !is_port_name(&port.name) {
            faults.push(format!(
                "ports[{index}].name must be a port name (RFC 6335, at most 15 characters), is {:?}",
                start(&port.name)
            ));
        } else if !names.insert(&port.name) {
            faults.push(format!("ports[{index}].name repeats {:?}", port.name));
        }
    }
}

/// Enough of a text to recognise it in a message.
fn start(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 2, 3));

    fn hello() -> Hello {
        Hello {
            instance_uid: "4f0c".into(),
            workload: "payments-3".into(),
            labels: [("app.kubernetes.io/name".to_owned(), "payments".to_owned())].into(),
            ports: vec![WorkloadPort { port: 8080, name: "http".into() }],
            inbound_address: "0.0.0.0:15006".into(),
            ..Hello::default()
        }
    }

    #[test]
    fn an_unspecified_address_becomes_the_peers() {
        let table = [
            ("0.0.0.0:15006", "10.1.2.3:15006"),
            ("[::]:15006", "10.1.2.3:15006"),
            ("127.0.0.1:15006", "127.0.0.1:15006"),
            ("[fd00::1]:1", "[fd00::1]:1"),
        ];
        for (said, expected) in table {
            let hello = Hello { inbound_address: said.into(), ..hello() };
            assert_eq!(check(hello, PEER).expect("no faults").inbound_address, expected);
        }
    }

    #[test]
    fn the_operators_port_is_told_of_where_it_can_be_reached() {
        let local = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        let table = [
            (PEER, "0.0.0.0:15006", "0.0.0.0:15020", "10.1.2.3:15020"),
            (PEER, "10.9.9.9:1", "0.0.0.0:15020", "10.9.9.9:15020"),
            (PEER, "0.0.0.0:15006", "10.1.2.4:15020", "10.1.2.4:15020"),
            (PEER, "0.0.0.0:15006", "127.0.0.1:15020", ""),
            (local, "127.0.0.1:15006", "127.0.0.1:15020", "127.0.0.1:15020"),
            (local, "127.0.0.1:15006", "", ""),
        ];
        for (peer, inbound, admin, expected) in table {
            let (inbound_address, admin_address) = (inbound.into(), admin.into());
            let hello = Hello { inbound_address, admin_address, ..hello() };
            assert_eq!(check(hello, peer).expect("no faults").admin_address, expected, "{admin}");
        }
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let port = |port, name: &str| WorkloadPort { port, name: name.into() };
        let hello = Hello {
            instance_uid: "a b".into(),
            workload: "Payments".into(),
            labels: [("-x".to_owned(), "y".to_owned()), ("x".to_owned(), "!".to_owned())].into(),
            ports: vec![port(0, ""), port(70_000, "HTTP"), port(80, "a"), port(80, "a")],
            inbound_address: "example.com:80".into(),
            admin_address: "15020".into(),
            version: "v".repeat(64),
            zone: "a\nb".into(),
            weight: 1001,
            ..Hello::default()
        };
        let faults = check(hello, PEER).expect_err("it is full of faults");
        let expected = [
            "instance_uid must",
            "workload must",
            "label \"x\"",
            "label key \"-x\"",
            "ports[0].port must",
            "ports[1].port must",
            "ports[1].name must",
            "ports[3].port repeats 80",
            "ports[3].name repeats",
            "inbound_address must",
            "admin_address must",
            "version must",
            "zone must",
            "weight must",
        ];
        assert_eq!(faults.len(), expected.len(), "{faults:#?}");
        for (fault, expected) in faults.iter().zip(expected) {
            assert!(fault.starts_with(expected), "{fault} is not about {expected}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_and_tamed() {
        let reason = format!("{}\n", "ä".repeat(MAX_REASON * 2));
        assert_eq!(words(&reason).chars().count(), MAX_REASON);
        assert_eq!(words("a\nb"), "a b");
    }
}
