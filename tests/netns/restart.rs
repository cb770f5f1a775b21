//! A sidecar is started anew beside its application: callers that name the workload's address stay in the mesh all the while.

use super::outside::request;
use crate::support::apps::{HttpApp, Version};
use crate::support::netns::{Workload, WorkloadSpec, in_world, listen_on};
use crate::support::{PATIENCE, eventually, raw};

#[test]
fn an_address_whose_sidecar_restarts_is_never_taken_for_one_outside() {
    in_world(async |world| {
        let place = world.place("web");
        let _app = HttpApp::on(listen_on(&place, 8080), "web", Version::Http1);
        world.mesh.apply_service("web", "http").await;
        let spec = || WorkloadSpec::serving("web-1", "web", &[8080]).flags(&["--drain-timeout", "2s"]);
        let mut web = world.workload(place, spec()).await;
        let client = world.workload(world.place("client"), WorkloadSpec::caller("client")).await;
        world.until_registered(&[&web, &client]).await;
        client.until_endpoints("web", 1).await;
        // By its name and by its address alone; both connections go to the workload's address.
        let address = (web.v4, 8080).into();
        let hosts = ["web".to_owned(), web.v4.to_string()];
        for host in &hosts {
            assert_eq!(raw::status(&request(&client, address, host).await), 200);
        }

        for abruptly in [false, true] {
            let Workload { place, mut process, .. } = web;
            if abruptly {
                process.kill().await;
            } else {
                process.terminate();
                // The old one still listens, and would take plaintext: the mesh is permissive.
                for host in &hosts {
                    let _ = request(&client, address, host).await;
                }
                assert!(process.wait(PATIENCE).await.is_some(), "it ends");
            }
            web = world.workload(place, spec()).await;
            for host in &hosts {
                eventually("the new one is called", async || {
                    (raw::status(&request(&client, address, host).await) == 200).then_some(())
                })
                .await;
            }
            let plain = [("direction", "inbound"), ("source", "outside")];
            assert_eq!(web.count("pillion_requests_total", &plain).await, 0.0, "nobody came in plaintext");
            let outside = [("direction", "outbound"), ("target", "outside")];
            assert_eq!(client.count("pillion_opaque_connections_total", &outside).await, 0.0);
        }
    });
}
