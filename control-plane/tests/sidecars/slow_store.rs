//! A store whose disk is busy: what is known already is told meanwhile, and who comes and goes, too.

use std::sync::Arc;

use async_trait::async_trait;
use pillion::{
    app::open_store,
    store::{Bucket, Change, Entry, Expect, Store, StoreError},
};
use pillion_api::wire::{
    Health, Resolve, control_message, resolve::Destination, sidecar_message, update::Kind,
};
use tokio::sync::watch;

use crate::support::{Sidecar, TestServer, hello, settings};

/// Does what another store does, but only while its disk is free.
struct Slow {
    store: Arc<dyn Store>,
    free: watch::Receiver<bool>,
}

impl Slow {
    async fn disk(&self) {
        let mut free = self.free.clone();
        free.wait_for(|free| *free).await.expect("the test outlives its server");
    }
}

#[async_trait]
impl Store for Slow {
    async fn get(&self, bucket: Bucket, key: &str) -> Result<Option<Entry>, StoreError> {
        self.disk().await;
        self.store.get(bucket, key).await
    }

    async fn list(&self, bucket: Bucket) -> Result<Vec<Entry>, StoreError> {
        self.disk().await;
        self.store.list(bucket).await
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<u64, StoreError> {
        self.disk().await;
        self.store.commit(changes).await
    }

    fn revisions(&self, bucket: Bucket) -> watch::Receiver<u64> {
        self.store.revisions(bucket)
    }
}

async fn payments_address(sidecar: &mut Sidecar) -> String {
    let destination = Some(Destination::Address("10.1.0.7:8080".to_owned()));
    sidecar.say(sidecar_message::Message::Resolve(Resolve { destination })).await;
    match sidecar.hear().await {
        Ok(control_message::Message::Resolved(resolved)) => resolved.uid,
        other => panic!("expected an answer, not {other:?}"),
    }
}

#[tokio::test]
async fn questions_and_subscriptions_are_answered_while_the_disk_is_busy() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = settings(folder.path()).check(None).expect("the settings are right");
    let quick = open_store(&config.data_dir).await.expect("the store opens");
    let (disk, free) = watch::channel(true);
    let server = TestServer::start_over(config, Arc::new(Slow { store: Arc::clone(&quick), free })).await;
    for service in ["payments", "cart"] {
        server.apply_service(service).await;
    }
    let token = server.join_token("payments").await;
    let payments = server.certify(folder.path(), &token).await.expect("a certificate");
    let mut web = server.sidecar(folder.path(), "web", "web-1").await;
    web.subscribe("payments.demo").await;
    web.update_where(Kind::Config, |_| true).await;

    disk.send_replace(false);
    // Somebody has written, and it cannot be read.
    let document = br#"{"kind":"Service","metadata":{"name":"late","namespace":"demo"},"spec":{"ports":[{"port":80}],"selector":{"app":"late"},"clusterIP":"None"}}"#;
    let change = Change {
        bucket: Bucket::Documents,
        key: "Service/demo/late".to_owned(),
        value: Some(document.to_vec()),
        expect: Expect::Absent,
    };
    quick.commit(vec![change]).await.expect("stored");

    let there = pillion_api::wire::Hello {
        inbound_address: "10.1.0.7:15006".to_owned(),
        health: Some(Health { reason: "it starts".to_owned(), ..Default::default() }),
        ..hello("payments", "payments-1")
    };
    // A new workload is welcomed, and told of to others, by what is known without the disk.
    let arrived = server.sidecar_as(&payments, there).await;
    web.update_where(Kind::Endpoints, |update| !update.payload.is_empty()).await;
    arrived.say(sidecar_message::Message::Health(Health { ready: true, ..Default::default() })).await;
    web.update_where(Kind::Endpoints, |update| !update.payload.is_empty()).await;
    assert_eq!(payments_address(&mut web).await, "payments-1");
    web.subscribe("cart.demo").await;
    web.update_where(Kind::Config, |update| update.service == "cart.demo").await;

    // And what could not be read is told of when it can.
    web.subscribe("late.demo").await;
    disk.send_replace(true);
    web.update_where(Kind::Config, |update| update.service == "late.demo" && !update.payload.is_empty())
        .await;
    server.stop().await;
}
