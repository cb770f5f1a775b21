//! Settings that are valid, and all faults of those that are not.

use super::*;

fn minimal() -> Raw {
    Raw { join_token: Some("t".into()), ..Raw::default() }
}

#[test]
fn defaults() {
    let config = check(minimal(), "Host-1.example").expect("valid");
    assert_eq!(config.workload, "host-1");
    assert_eq!(config.inbound_listen.to_string(), "0.0.0.0:15006");
    assert_eq!(config.outbound_listen.to_string(), "127.0.0.1:15001");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:15020");
    assert_eq!(config.health, None);
    assert_eq!((config.workers, config.max_connections), (1, 16384));
}

#[test]
fn everything_at_once() {
    let raw = Raw::from_yaml(
        "workload: payments-3\nlabels: app=payments, version=v1\nports: 8080:http=127.0.0.1:4000,9090\n\
         listeners: 127.0.0.1:0=redis.demo:6379\nhealth: http://127.0.0.1:4000/healthz?x\ndrainTimeout: 1m30s\n\
         joinTokenFile: /run/token\nlogFormat: json\n",
    )
    .expect("valid YAML");
    let config = check(raw, "h").expect("valid");
    assert_eq!(config.labels.len(), 2);
    assert_eq!(config.ports[0].name, "http");
    assert_eq!(config.ports[0].address.to_string(), "127.0.0.1:4000");
    assert_eq!(config.ports[1].address.to_string(), "127.0.0.1:9090");
    assert_eq!(config.listeners[0].service.as_str(), "redis.demo");
    assert_eq!(config.drain_timeout, Duration::from_secs(90));
    let Some(HealthCheck::Http { path, .. }) = &config.health else { panic!("{:?}", config.health) };
    assert_eq!(path, "/healthz?x");
}

#[test]
fn what_is_printed_means_the_same() {
    let raw = Raw {
        labels: Some("a=1,b=2".into()),
        ports: Some("80:http=127.0.0.1:81,90".into()),
        listeners: Some("127.0.0.1:1=a.b:3".into()),
        redirected: Some("true".into()),
        dns_listen: Some("127.0.0.1:15053".into()),
        plaintext_ports: Some("80,90".into()),
        probes: Some("80/healthz,90/".into()),
        health: Some("http://127.0.0.1:81/h".into()),
        drain_timeout: Some("1m1ms".into()),
        advertise: Some("10.0.0.1:9".into()),
        access_log: Some("text".into()),
        access_log_file: Some("/a.log".into()),
        join_token_file: Some("/t".into()),
        ..Raw::default()
    };
    let config = check(raw, "h").expect("valid");
    let printed = Raw::from_yaml(&Raw::from(&config).to_yaml()).expect("valid YAML");
    assert_eq!(check(printed, "other").expect("valid"), config);
}

#[test]
fn all_faults_together() {
    let raw = Raw {
        workload: Some("No_Label".into()),
        labels: Some("a=1,a=2,b,=c,d=e f".into()),
        ports: Some("0,80,80,x:y,1:a_much_too_long_name,2:a,3:a".into()),
        inbound_listen: Some("nowhere".into()),
        outbound_listen: Some("0.0.0.0:1".into()),
        listeners: Some("127.0.0.1:1,127.0.0.1:2=x:3,127.0.0.1:2=a.b:0,0.0.0.0:4=a.b:5".into()),
        redirected: Some("perhaps".into()),
        dns_listen: Some("53".into()),
        plaintext_ports: Some("0,x".into()),
        probes: Some("80,/x,0/x,80/a b".into()),
        control_plane: Some("nowhere".into()),
        health: Some("https://x".into()),
        drain_timeout: Some("10".into()),
        workers: Some("0".into()),
        zone: Some("a\nb".into()),
        weight: Some("1001".into()),
        access_log: Some("xml".into()),
        log_format: Some("xml".into()),
        log_level: Some("=,=".into()),
        join_token: Some("a".into()),
        join_token_file: Some("b".into()),
        ..Raw::default()
    };
    let Faults(faults) = check(raw, "h").expect_err("nothing in it is right");
    for (field, count) in [
        ("workload", 1),
        ("labels", 4),
        ("ports", 5),
        ("inboundListen", 1),
        ("outboundListen", 1),
        ("listeners", 4),
        ("redirected", 1),
        ("dnsListen", 1),
        ("plaintextPorts", 2),
        ("probes", 4),
        ("controlPlane", 1),
        ("health", 1),
        ("drainTimeout", 1),
        ("workers", 1),
        ("zone", 1),
        ("weight", 1),
        ("accessLog", 1),
        ("logFormat", 1),
        ("logLevel", 1),
        ("joinToken", 1),
    ] {
        let found = faults.iter().filter(|fault| fault.starts_with(&format!("{field}: "))).count();
        assert_eq!(found, count, "{field} in {faults:#?}");
    }
}

#[test]
fn unknown_fields_are_refused_with_their_name() {
    let error = Raw::from_yaml("workload: a\nworklod: b\n").expect_err("unknown field");
    assert!(error.contains("worklod"), "{error}");
}

#[test]
fn flags_win_over_the_file() {
    let file = Raw { zone: Some("file".into()), workload: Some("file".into()), ..minimal() };
    let flags = Raw { zone: Some("flag".into()), ..Raw::default() };
    let config = check(flags.over(file), "h").expect("valid");
    assert_eq!((config.zone.as_str(), config.workload.as_str()), ("flag", "file"));
}

#[test]
fn durations() {
    for (text, expected) in [
        ("500ms", Some(500)),
        ("1m30s", Some(90_000)),
        ("2h", Some(7_200_000)),
        ("0s", None),
        ("10", None),
        ("s", None),
        ("", None),
        ("1d", None),
        ("18446744073709551615s1s", None),
        ("-1s", None),
    ] {
        assert_eq!(duration(text), expected.map(Duration::from_millis), "{text:?}");
    }
}

#[test]
fn secrets_are_not_shown() {
    assert!(!minimal().to_yaml().contains("joinToken: t"));
    assert!(!format!("{:?}", check(minimal(), "h").expect("valid")).contains("\"t\""));
}
