//! `pillion inject` as people run it, and what injected workloads ask of the sidecar's program.

use std::{path::Path, process::Stdio};

use pillion::inject::Node;
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::support::mesh::{Mesh, SidecarSpec, pillion, pillion_proxy};
use crate::support::{apps, eventually, soon};

const COMPOSE: &str = "services:\n  web:\n    image: web:1\n    ports: [\"80:8080\"]\n";

struct Said {
    code: Option<i32>,
    output: String,
    errors: String,
}

async fn inject(arguments: &[&str], input: &str) -> Said {
    let mut process = Command::new(pillion())
        .arg("inject")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let mut stdin = process.stdin.take().expect("it is piped");
    // What is refused at once is not read.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = soon("inject ends", process.wait_with_output()).await.expect("it runs");
    Said {
        code: output.status.code(),
        output: String::from_utf8(output.stdout).expect("text"),
        errors: String::from_utf8(output.stderr).expect("text"),
    }
}

#[tokio::test]
async fn from_standard_input_to_standard_output_and_back() {
    let there = inject(&["-f", "-", "--with-control-plane"], COMPOSE).await;
    assert_eq!(there.code, Some(0), "{}", there.errors);
    assert!(there.output.contains("web-pillion-net:"), "{}", there.output);
    let again = inject(&["-f", "-", "--with-control-plane"], &there.output).await;
    assert_eq!(again.output, there.output, "once is enough");
    let back = inject(&["-f", "-", "--uninject"], &there.output).await;
    assert_eq!(back.output, "services:\n  web:\n    image: web:1\n    ports:\n    - 80:8080\n");
}

#[tokio::test]
async fn from_file_to_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("in.yaml"), COMPOSE).expect("written");
    let (input, output, services) = (path("in.yaml"), path("out.yaml"), path("services.yaml"));
    let arguments = ["-f", &input, "-o", &output, "--services", &services];
    let said = inject(
        &[&arguments[..], &["--control-plane", "10.0.0.1:15010", "--join-token-file", "./tokens/{service}"]]
            .concat(),
        "",
    )
    .await;
    assert_eq!((said.code, said.output.as_str()), (Some(0), ""), "{}", said.errors);
    let read = |name: &str| std::fs::read_to_string(path(name)).expect("it was written");
    assert!(read("out.yaml").contains("source: ./tokens/web"), "{}", read("out.yaml"));
    // What it says of the services is what a control plane takes.
    let mesh = Mesh::start().await;
    mesh.apply(&read("services.yaml").replace("namespace: default", "namespace: demo")).await;
}

#[tokio::test]
async fn what_is_wrong_is_told_with_its_place_and_nothing_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("out.yaml").display().to_string();
    let text = "services:\n  a: {ports: [x], labels: {pillion.dev/what: \"1\"}}\n";
    let said = inject(&["-f", "-", "-o", &output, "--with-control-plane"], text).await;
    assert_eq!(said.code, Some(1));
    for words in
        ["2 faults", "services.a.ports[0]: ", "services.a.labels[\"pillion.dev/what\"]: is not known"]
    {
        assert!(said.errors.contains(words), "{words:?} in {}", said.errors);
    }
    assert!(!Path::new(&output).exists());
    for (arguments, input, code, words) in [
        (&["-f", "-"][..], "a: [", 1, "standard input:1:4: is not YAML"),
        (&["-f", "-"], "", 2, "no document"),
        (&["-f", "/does/not/exist"], "", 2, "cannot read /does/not/exist"),
        (&["-f", "-", "--control-plane", "nowhere"], "", 2, "is not HOST:PORT"),
        (&["-f", "-", "--uninject", "--with-control-plane"], "", 2, "cannot be used with"),
    ] {
        let said = inject(arguments, input).await;
        assert_eq!(said.code, Some(code), "{arguments:?}: {}", said.errors);
        assert!(said.errors.contains(words), "{arguments:?}: {}", said.errors);
    }
}

#[tokio::test]
async fn what_is_injected_the_sidecars_program_takes() {
    let compose = "services:\n  web:\n    image: web:1\n    ports:\n    - {target: 80, name: web}\n    - {target: 81, name: web}\n    \
                   - {target: 82, name: A very long name}\n    labels:\n      pillion.dev/labels: app=web,example.com/tier=\n      \
                   pillion.dev/exclude-outbound-cidrs: 10.0.0.0/8\n      pillion.dev/plaintext-ports: \"80\"\n";
    let said = inject(&["-f", "-", "--with-control-plane"], compose).await;
    assert_eq!(said.code, Some(0), "{}", said.errors);
    assert_eq!(said.errors.matches("goes without its name").count(), 2, "{}", said.errors);
    let file = pillion::inject::text::read(&said.output).expect("YAML").remove(0);
    let sidecar =
        file.at(&["services", "web-pillion", "environment"]).and_then(Node::object).expect("settings");
    let mut check = Command::new(pillion_proxy());
    check.arg("check-config").envs(sidecar.iter().map(|(name, value)| (name, value.text().expect("a text"))));
    let redirect = file.at(&["services", "web-pillion-net", "command"]).expect("arguments").items();
    let mut dry_run = Command::new(pillion_proxy());
    dry_run.args(redirect.iter().filter_map(Node::text).filter(|it| *it != "--hold")).arg("--dry-run");
    for mut command in [check, dry_run] {
        let output = soon("it ends", command.stdin(Stdio::null()).output()).await.expect("it starts");
        assert!(output.status.success(), "{output:?}");
    }

    let refused = "services:\n  web:\n    image: web:1\n    labels:\n      pillion.dev/labels: app=a b\n      \
                   pillion.dev/exclude-outbound-cidrs: 10.0.0.1/8\n";
    let said = inject(&["-f", "-", "--with-control-plane"], refused).await;
    assert_eq!(said.code, Some(1));
    for words in ["the value must be", "10.0.0.1 is not the first address of its network of 8 bits"] {
        assert!(said.errors.contains(words), "{words:?} in {}", said.errors);
    }
}

#[tokio::test]
async fn a_sidecar_says_whether_it_is_ready_and_whether_its_application_takes_connections() {
    let mesh = Mesh::start().await;
    let app = apps::App::tcp_echo().await;
    let sidecar = mesh.sidecar(SidecarSpec::serving("a-1", "a", app.address)).await;
    let admin = sidecar.addresses.admin.to_string();
    let ready = async |arguments: &[&str], admin: &str| {
        let run = Command::new(pillion_proxy())
            .args(["--admin-listen", admin, "ready"])
            .args(arguments)
            .stdin(Stdio::null())
            .output();
        soon("ready ends", run).await.expect("it starts")
    };
    assert!(ready(&["--wait", "10s"], &admin).await.status.success());

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sidecar.yaml");
    let by_file = async |text: &str| {
        std::fs::write(&file, text).expect("written");
        let mut ready = Command::new(pillion_proxy());
        ready.arg("ready").env("PILLION_CONFIG", &file).stdin(Stdio::null());
        soon("ready ends", ready.output()).await.expect("it starts")
    };
    assert!(by_file(&format!("adminListen: {admin}\n")).await.status.success());
    assert_eq!(by_file("adminListen: 127.0.0.1:1\n").await.status.code(), Some(1));
    let unreadable = by_file("adminLisen: 127.0.0.1:1\n").await;
    assert_eq!(unreadable.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&unreadable.stderr).contains("adminLisen"), "{unreadable:?}");

    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let accepts = async |port: u16| {
        let answer = client.get(format!("http://{admin}/accepts/{port}")).send().await.expect("it answers");
        answer.status().as_u16()
    };
    assert_eq!(accepts(8080).await, 200);
    assert_eq!(accepts(8081).await, 404, "others' ports are nobody's business");
    drop(app);
    eventually("the application takes no connections", async || (accepts(8080).await == 503).then_some(()))
        .await;

    let nobody = ready(&[], "127.0.0.1:1").await;
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("not ready: 127.0.0.1:1: "), "{nobody:?}");
}
