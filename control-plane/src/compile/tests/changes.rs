//! Versions, and that changes add up.

use super::*;

#[test]
fn equal_input_gives_equal_versions_and_only_what_changed_changes() {
    let documents =
        documents(&(service("a", "[{port: 80}]", "{app: a}") + &service("b", "[{port: 80}]", "{app: b}")));
    let labels: Vec<(String, String)> = (0..20).map(|number| (format!("l{number}"), "x".into())).collect();
    let mut labels: Vec<(&str, &str)> =
        labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    labels.push(("app", "a"));
    let one = workload("1", "demo", &labels, &[]);
    let two = workload("2", "demo", &[("app", "a")], &[]);
    let (first, _) = compile(&documents, &[one.clone(), two.clone()]);
    let (second, _) = compile(&documents, &[two.clone(), one.clone()]);
    assert_eq!(first, second, "the order of workloads means nothing");

    let (third, _) = compile(&documents, &[one]);
    assert_eq!(first["a.demo"].config, third["a.demo"].config);
    assert_ne!(first["a.demo"].endpoints.version, third["a.demo"].endpoints.version);
    assert_eq!(first["b.demo"], third["b.demo"]);
    assert_eq!(first["a.demo"].config.version.len(), 16);
}

/// What a subscriber of everything would know.
#[derive(Debug, Default, PartialEq)]
struct Told {
    services: Compiled,
    memberships: BTreeMap<String, Arc<[Name]>>,
}

impl Told {
    fn take(&mut self, changed: Changed) {
        for (name, service) in changed.services {
            match service {
                Some(service) => drop(self.services.insert(name, service)),
                None => drop(self.services.remove(&name).expect("it was there")),
            }
        }
        for (uid, services) in changed.memberships {
            if services.is_empty() {
                self.memberships.remove(&uid);
            } else {
                self.memberships.insert(uid, services);
            }
        }
    }
}

/// Three sets of documents that differ in selectors, named ports and routes.
fn some_documents() -> [Documents; 3] {
    let a = service("a", "[{port: 80, targetPort: http}]", "{app: a}");
    let b = service("b", "[{port: 80}]", "{app: b, tier: x}");
    let all = service("all-of-it", "[{port: 81, targetPort: http}]", "{tier: x}");
    let web =
        service("web", "[{port: 80}]", "{}") + &route("r", "", "[{backendRefs: [{name: a, port: 80}]}]");
    [
        documents(&(a.clone() + &b)),
        documents(&(a + &all + &web)),
        documents(&(service("a", "[{port: 90}]", "{tier: x}") + &b + &all)),
    ]
}

proptest::proptest! {
    /// Whatever happens in whatever order: what was told change by change is what compiling from nothing gives.
    #[test]
    fn changes_add_up_to_what_compiling_everything_gives(
        steps in proptest::collection::vec((0..8_usize, 0..3_usize, 0..2_usize, 0..2_u32, proptest::bool::weighted(0.8)), 1..40)
    ) {
        let documents = some_documents();
        let mut now = 0;
        let mut workloads: BTreeMap<String, Workload> = BTreeMap::new();
        let mut assembly = Assembly::new(&documents[now], []);
        let mut told = Told::default();
        told.take(assembly.everything());
        for (number, app, tier, port, there) in steps {
            let uid = format!("w{number}");
            let labels = [("app", ["a", "b", "c"][app]), ("tier", ["x", "y"][tier])];
            let workload = workload(&uid, "demo", &labels, &[("http", 8080 + port)]);
            let member = there.then(|| Arc::new(workload.clone()));
            if there {
                workloads.insert(uid.clone(), workload);
            } else {
                workloads.remove(&uid);
            }
            // Now and then the documents change along with it.
            let changed = if number == 0 {
                now = app;
                assembly.replace(&documents[now], [(uid, member)])
            } else {
                assembly.change([(uid, member)])
            };
            told.take(changed);

            let all: Vec<Workload> = workloads.values().cloned().collect();
            let (compiled, faults) = compile(&documents[now], &all);
            proptest::prop_assert_eq!(&told.services, &compiled);
            proptest::prop_assert_eq!(assembly.faults(), faults);
            let serving: BTreeMap<String, Arc<[Name]>> = all
                .iter()
                .filter_map(|workload| {
                    let mut services: Vec<Name> = compiled
                        .keys()
                        .filter(|name| endpoints(&compiled, name).contains(&workload.hello.instance_uid))
                        .cloned()
                        .collect();
                    services.sort_by_key(|name| name.split('.').next().map(str::to_owned));
                    (!services.is_empty()).then(|| (workload.hello.instance_uid.clone(), services.into()))
                })
                .collect();
            proptest::prop_assert_eq!(&told.memberships, &serving);
        }
    }
}

#[test]
fn a_change_touches_its_own_services_and_says_nothing_where_nothing_is_new() {
    let documents =
        documents(&(service("a", "[{port: 80}]", "{app: a}") + &service("b", "[{port: 80}]", "{app: b}")));
    let one = Arc::new(workload("1", "demo", &[("app", "a")], &[]));
    let mut assembly = Assembly::new(&documents, [Arc::clone(&one)]);
    let before = assembly.everything();
    assert_eq!(assembly.change([("1".to_owned(), Some(Arc::clone(&one)))]), Changed::default());

    let mut unready = (*one).clone();
    unready.hello.health = Some(wire::Health { reason: "slow".into(), ..Default::default() });
    let changed = assembly.change([("1".to_owned(), Some(Arc::new(unready.clone())))]);
    assert_eq!(changed.services.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["a.demo"]);
    assert_eq!(changed.memberships, [], "it serves the same services");
    // Others are told whether it is ready, not why.
    unready.hello.health = Some(wire::Health { reason: "slower".into(), ..Default::default() });
    assert_eq!(assembly.change([("1".to_owned(), Some(Arc::new(unready)))]), Changed::default());

    assembly.change([("1".to_owned(), Some(one))]);
    assert_eq!(assembly.everything(), before);
    assert_eq!(assembly.replace(&documents, []), Changed::default(), "the same documents are no news");
}
