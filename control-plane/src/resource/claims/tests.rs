//! Who has what, and that nothing is had by two.

use proptest::prelude::*;

use super::*;
use crate::{
    resource::{admit, text},
    store::embedded::EmbeddedStore,
};

fn read(yaml: &str) -> Vec<Document> {
    let written = text::read(yaml, text::Format::Yaml).expect("it is YAML");
    written.iter().enumerate().map(|(index, it)| admit::admit(index, it, None).expect("admitted")).collect()
}

fn service(name: &str, address: &str) -> String {
    let address = if address.is_empty() { String::new() } else { format!(", clusterIP: {address}") };
    format!(
        "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{ports: [{{port: 80}}]{address}}}}}\n"
    )
}

fn external(name: &str, host: &str) -> String {
    format!(
        "---\n{{apiVersion: pillion.dev/v1alpha1, kind: ExternalService, metadata: {{name: {name}}}, spec: {{host: {host}, \
         ports: [{{port: 443}}]}}}}\n"
    )
}

fn config(cidr: &str) -> String {
    format!(
        "---\n{{apiVersion: pillion.dev/v1alpha1, kind: MeshConfig, metadata: {{name: mesh}}, spec: {{serviceCidr: {cidr}}}}}\n"
    )
}

/// Settles a request; its documents where nothing is wrong with it.
fn request(yaml: &str, current: &Documents) -> Result<Documents, Vec<String>> {
    let mut documents = read(yaml);
    let faults = settle(&mut documents, current);
    if !faults.is_empty() {
        return Err(faults.into_iter().map(|(index, fault)| format!("{index} {fault}")).collect());
    }
    let mut next = current.clone();
    documents.into_iter().for_each(|document| next.insert(document));
    Ok(next)
}

fn addresses(documents: &Documents) -> Vec<String> {
    let addresses = documents.iter().filter_map(|(_, document)| document.cluster_ip());
    addresses.map(str::to_owned).collect()
}

#[test]
fn an_address_is_given_once_and_stays() {
    let first = request(&(service("web", "") + &external("api", "example.com")), &Documents::default())
        .expect("settled");
    let given = addresses(&first);
    assert_eq!(given.len(), 2);
    assert!(given.iter().all(|it| it.starts_with("240.240.")), "{given:?}");
    let again = request(&(service("web", "") + &external("api", "example.com")), &first).expect("settled");
    assert_eq!(addresses(&again), given);
    let said = request(&service("web", &given[0]), &first).expect("what it has may be said");
    assert_eq!(addresses(&said), given);
    assert_eq!(
        request(&service("web", "None"), &first).expect_err("it has one"),
        [format!(
            "0 spec.clusterIP: must stay {:?} for as long as there is this Service, is \"None\"; delete it first to choose another",
            given[0]
        )]
    );
}

#[test]
fn an_address_may_be_chosen_if_it_is_free() {
    // Chosen by the second, so that it is not given to the first even where that would get it.
    let alone = request(&service("a", ""), &Documents::default()).expect("settled");
    let wanted = addresses(&alone).remove(0);
    let both = service("a", "") + &service("b", &wanted) + &service("c", "None");
    let both = request(&both, &Documents::default()).expect("settled");
    let given = addresses(&both);
    assert_eq!((&given[1], &given[2]), (&wanted, &"None".to_owned()));
    assert_ne!(given[0], wanted);

    let refused = [
        (wanted.as_str(), format!("0 spec.clusterIP: {wanted} is the address of Service default/b already")),
        (
            "10.0.0.1",
            "0 spec.clusterIP: must be in 240.240.0.0/16, and not end with .0 or .255, to be chosen; is 10.0.0.1".into(),
        ),
        (
            "240.240.7.255",
            "0 spec.clusterIP: must be in 240.240.0.0/16, and not end with .0 or .255, to be chosen; is 240.240.7.255"
                .into(),
        ),
    ];
    for (address, fault) in refused {
        assert_eq!(request(&service("d", address), &both).expect_err(address), [fault]);
    }
}

#[test]
fn a_host_and_a_name_belong_to_one() {
    let current = request(&(service("web", "") + &external("api", "example.com")), &Documents::default())
        .expect("settled");
    assert_eq!(
        request(&(external("web", "example.org") + &external("other", "example.com")), &current)
            .expect_err("taken"),
        [
            "0 metadata.name: is the name of Service default/web already: a Service and an ExternalService of one namespace \
             cannot share a name",
            "1 spec.host: \"example.com\" is the host of ExternalService default/api already",
        ]
    );
    // Within one request, too: the first has it.
    let twice = external("x", "twice.example") + &external("y", "twice.example");
    assert_eq!(
        request(&twice, &current).expect_err("twice"),
        ["1 spec.host: \"twice.example\" is the host of ExternalService default/x already"]
    );
    // What a request takes away, it may give.
    let swap = external("api", "new.example") + &external("other", "example.com");
    assert!(request(&swap, &current).is_ok());
}

#[test]
fn a_block_is_left_only_when_nobody_is_left_behind() {
    let current = request(&service("web", "240.240.3.7"), &Documents::default()).expect("settled");
    let wider = request(&config("240.0.0.0/8"), &current).expect("it holds what is given");
    assert!(stranded_by_default(&wider).is_none());
    let other = "240.241.0.0/16";
    assert_eq!(
        request(&config(other), &current).expect_err("web is outside"),
        [format!(
            "0 spec.serviceCidr: {other} must hold the addresses that services have; 1 are outside, the first is 240.240.3.7 \
             of Service default/web. Choose a block that holds them, or delete these services first"
        )]
    );
    // The block of the same request counts for its services.
    let moved = config(other) + &service("web", "");
    let moved = request(&moved, &Documents::default()).expect("settled");
    let mut without = moved.clone();
    without.remove(&Key::new(Kind::MeshConfig, "pillion-system", "mesh"));
    let fault = stranded_by_default(&without).expect("web is outside the default");
    assert!(fault.message.starts_with("240.240.0.0/16 must hold"), "{fault}");
}

#[test]
fn a_full_block_says_so() {
    let mut yaml = config("10.9.8.0/24");
    (0..255).for_each(|index| yaml += &service(&format!("s{index}"), ""));
    assert_eq!(
        request(&yaml, &Documents::default()).expect_err("255 of 254"),
        [
            "255 spec.clusterIP: no address is left: all 254 of 10.9.8.0/24 are given; widen serviceCidr of the MeshConfig, \
          delete services, or say \"None\""
        ]
    );
}

#[tokio::test]
async fn what_an_earlier_release_stored_is_completed_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = EmbeddedStore::open(folder.path()).expect("a store");
    let old = read(
        &(service("a", "") + &service("b", "None") + &external("c", "example.com") + &config("10.9.8.0/24")),
    );
    store.commit(old.iter().map(replacement).collect()).await.expect("stored");
    assert_eq!(complete(&store).await.expect("completed"), 2);
    let (documents, faults) = Documents::load(&store).await.expect("read");
    assert_eq!(faults, []);
    let given = addresses(&documents);
    assert_eq!((given.len(), given[1].as_str()), (3, "None"));
    assert!(given[0].starts_with("10.9.8.") && given[2].starts_with("10.9.8."), "{given:?}");
    assert_eq!(complete(&store).await.expect("nothing to do"), 0);
    assert_eq!(addresses(&Documents::load(&store).await.expect("read").0), given);
}

#[tokio::test]
async fn a_change_that_rests_on_older_documents_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = EmbeddedStore::open(folder.path()).expect("a store");
    let (one, other) = (Guard::read(&store).await.expect("read"), Guard::read(&store).await.expect("read"));
    store.commit(vec![one.change()]).await.expect("the first");
    let overtaken = store.commit(vec![other.change()]).await.expect_err("the second");
    assert!(Guard::was_overtaken(&overtaken), "{overtaken}");
    let again = Guard::read(&store).await.expect("read");
    store.commit(vec![again.change()]).await.expect("it looked again");
}

proptest! {
    /// Whatever is made and deleted: each service has an address, no two the same, and keeps it.
    #[test]
    fn addresses_never_collide(steps in prop::collection::vec((0_u8..40, 0_u8..4, 1_u8..255), 1..120)) {
        let mut current = request(&config("10.9.8.0/24"), &Documents::default()).expect("settled");
        for (name, what, host) in steps {
            let name = format!("s{name}");
            let key = Key::new(Kind::Service, "default", name.as_str());
            let before = current.get(&key).and_then(|it| it.virtual_address());
            let wanted = match what {
                0 => {
                    current.remove(&key);
                    continue;
                }
                1 => service(&name, &format!("10.9.8.{host}")),
                _ => service(&name, ""),
            };
            match request(&wanted, &current) {
                Ok(next) => current = next,
                Err(faults) => prop_assert!(what == 1, "{:?}", faults),
            }
            let after = current.get(&key).and_then(|it| it.virtual_address());
            prop_assert!(before.is_none() || before == after);
            let given: Vec<Ipv4Addr> = current.iter().filter_map(|(_, it)| it.virtual_address()).collect();
            prop_assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), given.len());
            prop_assert_eq!(given.len(), current.services(None).count());
        }
    }
}
