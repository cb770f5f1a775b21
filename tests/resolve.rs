//! Host names as the sidecar looks them up itself, of a name server that the test plays.

use std::time::{Duration, Instant};

use pillion_proxy::error::{Reason, Refusal};
use pillion_proxy::net::resolve::{KEPT, Resolver};

use crate::support::nameserver::{By, NameServer};
use crate::support::soon;

const HOSTS: &[(&str, u32, &[&str])] = &[
    ("both.test", 60, &["10.0.0.1", "::1", "10.0.0.2"]),
    ("far.test", 60, &["2001:db8::1", "10.0.0.1"]),
    ("brief.test", 0, &["10.0.0.3"]),
    ("lasting.test", 86400, &["10.0.0.4"]),
    ("near.corp.test", 60, &["10.0.0.5"]),
    ("under_score.test", 60, &["10.0.0.6"]),
];

async fn addresses(resolver: &Resolver, host: &str) -> Vec<String> {
    let resolved = soon(host, resolver.lookup(host)).await.expect(host);
    resolved.addresses.iter().map(ToString::to_string).collect()
}

async fn refused(resolver: &Resolver, host: &str) -> String {
    let Refusal { reason, detail, .. } = soon(host, resolver.lookup(host)).await.expect_err(host);
    assert_eq!(reason, Reason::NoAddress, "{detail}");
    detail
}

#[tokio::test]
async fn both_families_for_as_long_as_they_hold() {
    let server = NameServer::with(HOSTS).await;
    let folder = tempfile::tempdir().expect("a folder");
    let resolver = Resolver::from_sources(server.host(folder.path(), "", ""));
    assert_eq!(addresses(&resolver, "both.test").await, ["::1", "10.0.0.1", "10.0.0.2"]);
    assert_eq!(addresses(&resolver, "Under_Score.test.").await, ["10.0.0.6"]);
    for (host, least, most) in [
        ("both.test", Duration::from_secs(50), Duration::from_secs(60)),
        ("brief.test", KEPT.0, KEPT.0),
        ("lasting.test", KEPT.1 - Duration::from_secs(10), KEPT.1),
    ] {
        let valid_for = resolver.lookup(host).await.expect(host).valid_for;
        assert!((least..=most).contains(&valid_for), "{host}: {valid_for:?}");
    }
}

#[tokio::test]
async fn answers_are_kept_also_that_there_is_none() {
    let server = NameServer::with(HOSTS).await;
    let folder = tempfile::tempdir().expect("a folder");
    let resolver = Resolver::from_sources(server.host(folder.path(), "", ""));
    addresses(&resolver, "both.test").await;
    refused(&resolver, "nobody.test").await;
    let asked = server.asked().len();
    assert_eq!(asked, 4, "A and AAAA of two names");
    addresses(&resolver, "both.test").await;
    refused(&resolver, "nobody.test").await;
    assert_eq!(server.asked().len(), asked);
}

#[tokio::test]
async fn refusals_say_what_was_asked_of_whom_and_what_came_back() {
    let server = NameServer::with(HOSTS).await;
    let folder = tempfile::tempdir().expect("a folder");
    let options = "options timeout:1 attempts:1";
    let resolver = Resolver::from_sources(server.host(folder.path(), options, ""));
    for (host, answer) in [
        ("nobody.test", "NXDOMAIN"),
        ("broken.test", "SERVFAIL"),
        ("empty.test", "has no address"),
        ("silent.test", "no answer in time"),
    ] {
        let detail = refused(&resolver, host).await;
        assert_eq!(detail, format!("{host}: {answer} (A and AAAA asked of 127.0.0.1)"));
    }
    assert!(refused(&resolver, "no name").await.contains("is no name"));
    assert!(refused(&resolver, &"a.".repeat(200)).await.contains("is no name"));
}

#[tokio::test]
async fn a_server_that_is_silent_costs_no_more_than_the_deadline() {
    let server = NameServer::start(|_| Vec::new()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let resolver = Resolver::from_sources(server.host(folder.path(), "search a.test b.test c.test", ""));
    let began = Instant::now();
    refused(&resolver, "nobody").await;
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

#[tokio::test]
async fn search_domains_and_hosts_are_the_systems() {
    let server = NameServer::with(HOSTS).await;
    let folder = tempfile::tempdir().expect("a folder");
    let hosts = "10.9.0.1 here.test here # a comment\nfd00::9 here.test\n";
    let sources = server.host(folder.path(), "search other.test corp.test", hosts);
    let resolver = Resolver::from_sources(sources.clone());
    assert_eq!(addresses(&resolver, "near").await, ["10.0.0.5"]);
    let before = server.asked().len();
    let mut here = addresses(&resolver, "here.test").await;
    here.sort();
    assert_eq!(here, ["10.9.0.1", "fd00::9"]);
    assert_eq!(server.asked().len(), before, "no server knows better");
    // Changed files hold at once.
    std::fs::write(&sources.hosts, "10.9.0.22 here.test\n").expect("the folder is ours");
    assert_eq!(addresses(&resolver, "here.test").await, ["10.9.0.22"]);
}

#[tokio::test]
async fn who_is_in_the_hosts_file_is_asked_of_nobody() {
    let server = NameServer::start(|_| Vec::new()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let sources = server.host(folder.path(), "search corp.test", "10.9.0.1 old.test\nfd00::9 new.test\n");
    let resolver = Resolver::from_sources(sources);
    assert_eq!(addresses(&resolver, "old.test").await, ["10.9.0.1"]);
    assert_eq!(addresses(&resolver, "New.Test.").await, ["fd00::9"]);
    assert!(server.asked().is_empty(), "one family is enough");
}

#[tokio::test]
async fn what_is_too_large_for_udp_comes_by_tcp() {
    let server = NameServer::with(HOSTS).await;
    let folder = tempfile::tempdir().expect("a folder");
    let resolver = Resolver::from_sources(server.host(folder.path(), "", ""));
    assert_eq!(addresses(&resolver, "large.test").await.len(), 200);
    assert!(server.asked().iter().any(|asked| asked.by == By::Tcp));
}

#[tokio::test]
async fn a_family_that_this_host_cannot_send_to_comes_last() {
    // Whether there is a route to it is this host's matter.
    let routed = std::net::UdpSocket::bind("[::]:0").and_then(|s| s.connect("[2001:db8::1]:53")).is_ok();
    let server = NameServer::with(HOSTS).await;
    let folder = tempfile::tempdir().expect("a folder");
    let resolver = Resolver::from_sources(server.host(folder.path(), "", ""));
    let expected = match routed {
        true => ["2001:db8::1", "10.0.0.1"],
        false => ["10.0.0.1", "2001:db8::1"],
    };
    assert_eq!(addresses(&resolver, "far.test").await, expected);
}
