use super::*;

fn filter(change: impl FnOnce(&mut wire::TapFilter)) -> Filter {
    let mut filter = wire::TapFilter::default();
    change(&mut filter);
    Filter::try_from(&filter).expect("a valid filter")
}

/// A request of web to payments, which a route sent to payments-v1, and which failed.
const FACTS: Facts<'static> = Facts {
    side: Side::Client,
    method: "POST",
    path: "/pay/1",
    ended: Ended { http: Some(503), grpc: None, refused: true, cancelled: false, failed: true },
    from: Who { services: ["web.demo", "web.demo"], workload: "web-1" },
    to: Who { services: ["payments.demo", "payments-v1.demo"], workload: "payments-3" },
    took_us: 20_000,
};

#[test]
fn every_part_that_is_there_must_fit() {
    type Change = fn(&mut wire::TapFilter);
    let table: [(&str, Change, bool); 32] = [
        ("nothing asked", |_| {}, true),
        ("its direction", |it| it.direction = "outbound".into(), true),
        ("the other", |it| it.direction = "inbound".into(), false),
        ("its method", |it| it.methods = vec!["POST".into()], true),
        ("one of two", |it| it.methods = vec!["GET".into(), "POST".into()], true),
        ("another method", |it| it.methods = vec!["GET".into()], false),
        ("a prefix", |it| it.path_prefix = "/pay".into(), true),
        ("a prefix need not end at a slash", |it| it.path_prefix = "/pa".into(), true),
        ("another path", |it| it.path_prefix = "/refund".into(), false),
        ("a longer path", |it| it.path_prefix = "/pay/1/2".into(), false),
        ("its class", |it| it.statuses = vec!["5xx".into()], true),
        ("another class", |it| it.statuses = vec!["4xx".into()], false),
        ("its status", |it| it.statuses = vec!["503".into()], true),
        ("another status", |it| it.statuses = vec!["500".into()], false),
        ("one of two statuses", |it| it.statuses = vec!["500".into(), "503".into()], true),
        ("refused", |it| it.statuses = vec!["refused".into()], true),
        ("cancelled", |it| it.statuses = vec!["cancelled".into()], false),
        ("it is not gRPC", |it| it.statuses = vec!["grpc-14".into()], false),
        ("its caller", |it| it.from = "web.demo".into(), true),
        ("another caller", |it| it.from = "cart.demo".into(), false),
        ("the caller's workload", |it| it.from = "workload/web-1".into(), true),
        ("another workload", |it| it.from = "workload/web-2".into(), false),
        ("who is called", |it| it.to = "svc/payments.demo".into(), true),
        ("who serves", |it| it.to = "payments-v1.demo".into(), true),
        ("the workload that serves", |it| it.to = "workload/payments-3".into(), true),
        ("the namespace", |it| it.to = "ns/demo".into(), true),
        ("another namespace", |it| it.to = "ns/emo".into(), false),
        ("as slow", |it| it.min_duration_us = 20_000, true),
        ("slower", |it| it.min_duration_us = 20_001, false),
        ("an error", |it| it.errors = true, true),
        ("sent to that service", |it| it.called = "payments-v1.demo".into(), true),
        ("sent to another", |it| it.called = "web.demo".into(), false),
    ];
    for (what, change, expected) in table {
        assert_eq!(filter(change).matches(&FACTS), expected, "{what}");
    }
}

#[test]
fn parts_are_joined_by_and() {
    let both = filter(|it| {
        it.path_prefix = "/pay".into();
        it.statuses = vec!["2xx".into()];
    });
    assert!(!both.matches(&FACTS));
    let well = Ended { http: Some(200), ..Ended::default() };
    assert!(both.matches(&Facts { ended: well, ..FACTS }));
}

#[test]
fn errors_are_what_failed_or_was_refused_and_grpc_is_judged_by_its_own_status() {
    let errors = filter(|it| it.errors = true);
    let ended = |ended| Facts { ended, ..FACTS };
    let limited = Ended { http: Some(429), refused: true, ..Ended::default() };
    assert!(errors.matches(&ended(limited)));
    let not_found = Ended { http: Some(404), ..Ended::default() };
    assert!(!errors.matches(&ended(not_found)));
    let unavailable = Ended { http: Some(200), grpc: Some(14), failed: true, ..Ended::default() };
    assert!(errors.matches(&ended(unavailable)));
    assert!(filter(|it| it.statuses = vec!["grpc-14".into()]).matches(&ended(unavailable)));
    assert!(!filter(|it| it.statuses = vec!["grpc-0".into()]).matches(&ended(unavailable)));
}

#[test]
fn what_is_sent_to_a_service_is_told_by_its_callers_only() {
    let called = filter(|it| it.called = "payments.demo".into());
    assert!(called.matches(&FACTS));
    assert!(!called.matches(&Facts { side: Side::Server, ..FACTS }));
}

#[test]
fn every_fault_is_named() {
    let filter = wire::TapFilter {
        direction: "up".into(),
        methods: vec!["get".into(), "POST".into()],
        path_prefix: "pay?x".into(),
        statuses: vec!["600".into(), "grpc-17".into(), "6xx".into(), "200".into()],
        from: "web".into(),
        to: "pod/web".into(),
        ..Default::default()
    };
    let wrong = Filter::try_from(&filter).expect_err("hardly anything is right");
    let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    let status =
        "status: must be such as \"5xx\", \"503\", \"grpc-14\" (0 to 16), \"refused\" or \"cancelled\", is";
    assert_eq!(
        wrong,
        [
            "direction: must be \"inbound\" or \"outbound\", is \"up\"".to_owned(),
            "method: must be a method such as GET, in upper case, is \"get\"".to_owned(),
            "path: must begin with /, is \"pay?x\"".to_owned(),
            format!("{status} \"600\""),
            format!("{status} \"grpc-17\""),
            format!("{status} \"6xx\""),
            "from: must be svc/NAME.NAMESPACE, workload/NAME or ns/NAME, is \"web\"".to_owned(),
            "to: must be svc/NAME.NAMESPACE, workload/NAME or ns/NAME, is \"pod/web\"".to_owned(),
        ]
    );
    let many = wire::TapFilter { statuses: vec!["5xx".into(); 17], ..Default::default() };
    assert_eq!(Filter::try_from(&many).expect_err("too many")[0].field, "status");
}

#[test]
fn words_are_read_as_they_are_written() {
    for text in ["5xx", "503", "grpc-14", "refused", "cancelled"] {
        assert_eq!(text.parse::<Status>().expect("a status").to_string(), text);
    }
    for (text, written) in [
        ("web.demo", "svc/web.demo"),
        ("service/web.demo", "svc/web.demo"),
        ("workload/web-1", "workload/web-1"),
        ("namespace/demo", "ns/demo"),
    ] {
        assert_eq!(text.parse::<Party>().expect("a party").to_string(), written);
    }
}

#[test]
fn a_cut_is_at_a_character_s_end() {
    assert_eq!(cut("abc", 3), "abc");
    assert_eq!(cut("abcd", 3), "abc");
    assert_eq!(cut("aäb", 2), "a");
    assert_eq!(cut("äb", 1), "");
}

#[test]
fn credentials_are_known_whatever_their_case() {
    assert!(is_secret("Authorization") && is_secret("cookie"));
    assert!(!is_secret("x-request-id"));
}
