//! The command line through the real binary, against a real server of its own.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

const PILLION: &str = env!("CARGO_BIN_EXE_pillion");

/// A server process with a data directory of its own; both end with it.
struct Server {
    child: Child,
    url: String,
    folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = Self::spawn(folder.path());
        let url = Self::wait(folder.path());
        Self { child, url, folder }
    }

    fn spawn(folder: &Path) -> Child {
        Command::new(PILLION)
            .args([
                "server",
                "--grpc-listen",
                "127.0.0.1:0",
                "--http-listen",
                "127.0.0.1:0",
                "--log-level",
                "warn",
            ])
            .arg("--data-dir")
            .arg(folder)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Until the server has said where it is and answers there.
    fn wait(folder: &Path) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            assert!(Instant::now() < deadline, "the server did not start");
            let said = std::fs::read(folder.join("server.json")).ok();
            let said: Option<Value> = said.and_then(|text| serde_json::from_slice(&text).ok());
            if let Some(address) = said.as_ref().and_then(|said| said["httpAddress"].as_str())
                && std::net::TcpStream::connect(address).is_ok()
            {
                return format!("http://{address}");
            }
            // The condition is looked at again soon; the deadline is above.
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Dies at once, as by a power cut, and starts again on the same data.
    fn kill_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::fs::remove_file(self.folder.path().join("server.json")).unwrap();
        self.child = Self::spawn(self.folder.path());
        self.url = Self::wait(self.folder.path());
    }

    fn token_file(&self) -> PathBuf {
        self.folder.path().join("admin.token")
    }

    /// Runs the command line as this server's admin.
    fn run(&self, arguments: &[&str]) -> Result<String, (i32, String)> {
        self.run_with(arguments, "")
    }

    fn run_with(&self, arguments: &[&str], input: &str) -> Result<String, (i32, String)> {
        let mut command = pillion();
        command.args(["--server", &self.url, "--token-file"]).arg(self.token_file()).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        outcome(&child.wait_with_output().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary, with nothing of this user's own settings.
fn pillion() -> Command {
    let mut command = Command::new(PILLION);
    for name in ["PILLION_SERVER", "PILLION_TOKEN", "PILLION_TOKEN_FILE", "PILLION_CA_FILE", "XDG_DATA_HOME"]
    {
        command.env_remove(name);
    }
    command.env("HOME", "/nonexistent");
    command
}

fn outcome(output: &Output) -> Result<String, (i32, String)> {
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout.clone()).unwrap());
    }
    Err((output.status.code().unwrap(), String::from_utf8(output.stderr.clone()).unwrap()))
}

const SERVICES: &str = "apiVersion: v1\nkind: Service\nmetadata:\n  name: pay\n  namespace: demo\nspec:\n  ports:\n  - port: \
                        80\n    targetPort: 8080\n    appProtocol: http\n---\napiVersion: v1\nkind: Service\nmetadata:\n  \
                        name: pay-v2\n  namespace: demo\nspec:\n  ports:\n  - port: 80\n  selector:\n    app: pay\n";
const CANARY: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: canary\n  namespace: \
                      demo\nspec:\n  parentRefs:\n  - group: ''\n    kind: Service\n    name: pay\n  rules:\n  - \
                      backendRefs:\n    - name: pay\n      port: 80\n      weight: 90\n    - name: pay-v2\n      port: 80\n      \
                      weight: 10\n";

#[test]
fn documents_are_applied_shown_described_and_deleted() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("1-services.yaml"), SERVICES).unwrap();
    std::fs::write(folder.path().join("2-canary.yml"), CANARY).unwrap();
    std::fs::write(folder.path().join("notes.txt"), "not a document").unwrap();
    let folder_name = folder.path().to_str().unwrap();

    let dry = server.run(&["apply", "-f", folder_name, "--dry-run"]).unwrap();
    assert!(dry.starts_with("Service demo/pay created (dry run)\n"), "{dry}");
    assert!(!dry.contains('+'), "{dry}");
    let applied = server.run(&["apply", "-f", folder_name]).unwrap();
    let expected = "Service demo/pay created\nService demo/pay-v2 created\nHTTPRoute demo/canary created\n";
    assert_eq!(applied, expected);
    assert_eq!(server.run_with(&["apply", "-f", "-"], CANARY).unwrap(), "HTTPRoute demo/canary unchanged\n");

    let shifted = CANARY.replace("weight: 90", "weight: 80").replace("weight: 10", "weight: 20");
    let diff = server.run_with(&["apply", "-f", "-", "--dry-run", "--diff"], &shifted).unwrap();
    let (outcome, lines) = diff.split_once('\n').unwrap();
    assert_eq!(outcome, "HTTPRoute demo/canary configured (dry run)");
    let lines: Vec<&str> =
        lines.lines().filter(|line| !line.starts_with(' ')).map(|line| line.trim_end()).collect();
    let expected = ["-      weight: 90", "+      weight: 80", "-      weight: 10", "+      weight: 20"];
    assert!(lines[0].starts_with("@@ -"), "{diff}");
    assert_eq!(lines[1..], expected, "{diff}");
    let diff = server.run_with(&["apply", "-f", "-", "--dry-run", "--diff"], CANARY).unwrap();
    assert_eq!(diff, "HTTPRoute demo/canary unchanged (dry run)\n");

    let table = server.run(&["get", "services", "-n", "demo"]).unwrap();
    let cells: Vec<&str> = table.split_whitespace().collect();
    assert_eq!(cells[..6], ["NAMESPACE", "NAME", "ADDRESS", "PORTS", "SELECTOR", "AGE"], "{table}");
    assert_eq!(cells[6..8], ["demo", "pay"], "{table}");
    assert!(cells[8].starts_with("240.240."), "{table}");
    assert_eq!(cells[9..12], ["80", "→", "8080"], "{table}");
    assert!(server.run(&["get", "svc"]).unwrap().contains("no services in namespace default"));
    assert!(server.run(&["get", "routes", "-A"]).is_err(), "an unknown kind");
    assert!(server.run(&["get", "httproutes", "-A"]).unwrap().contains("canary"));

    let yaml = server.run(&["get", "httproute", "canary", "-n", "demo", "-o", "yaml"]).unwrap();
    assert_eq!(server.run_with(&["apply", "-f", "-"], &yaml).unwrap(), "HTTPRoute demo/canary unchanged\n");
    let json: Value =
        serde_json::from_str(&server.run(&["get", "services", "-A", "-o", "json"]).unwrap()).unwrap();
    assert_eq!(json["items"].as_array().unwrap().len(), 2);

    let words = server.run(&["describe", "httproute", "canary", "-n", "demo"]).unwrap();
    for line in [
        "  calls to pay\n",
        "  → 90.0 % to pay port 80\n",
        "  → 10.0 % to pay-v2 port 80\n",
        "Accepted:    yes\n",
    ] {
        assert!(words.contains(line), "{line:?} in {words}");
    }
    let words = server.run(&["describe", "service", "pay-v2", "-n", "demo"]).unwrap();
    assert!(words.contains("Served by:   workloads with app=pay\n"), "{words}");
    assert!(words.contains("Endpoints:\n"), "{words}");

    let (code, error) = server.run(&["delete", "service", "pay", "-n", "demo"]).unwrap_err();
    assert_eq!(code, 1);
    assert!(error.contains("Service demo/pay is named by HTTPRoute demo/canary"), "{error}");
    let deleted = server.run(&["delete", "-f", folder_name]).unwrap();
    assert_eq!(deleted.lines().next(), Some("HTTPRoute demo/canary deleted"), "who names others goes first");
    assert_eq!(deleted.lines().count(), 3);
}

#[test]
fn the_mesh_and_what_is_outside_it_are_shown_too() {
    const OUTSIDE: &str = "{apiVersion: pillion.dev/v1alpha1, kind: ExternalService, metadata: {name: api, namespace: demo}, \
                           spec: {host: api.example.com, ports: [{port: 443}]}}\n---\n{apiVersion: pillion.dev/v1alpha1, kind: \
                           MeshConfig, metadata: {name: mesh}, spec: {inbound: strict}}\n---\n{apiVersion: \
                           pillion.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: api, namespace: demo}, spec: \
                           {targetRefs: [{group: pillion.dev, kind: ExternalService, name: api}]}}\n";
    let server = Server::start();
    let applied = server.run_with(&["apply", "-f", "-"], OUTSIDE).unwrap();
    let expected = "ExternalService demo/api created\nMeshConfig pillion-system/mesh created\nTrafficPolicy demo/api created\n";
    assert_eq!(applied, expected);
    assert_eq!(
        server.run_with(&["apply", "-f", "-"], OUTSIDE).unwrap(),
        expected.replace("created", "unchanged")
    );

    let table = server.run(&["get", "externalservices", "-n", "demo"]).unwrap();
    let cells: Vec<&str> = table.split_whitespace().collect();
    assert_eq!(cells[..6], ["NAMESPACE", "NAME", "ADDRESS", "PORTS", "HOST", "AGE"], "{table}");
    assert_eq!((cells[7], cells[9], cells[10]), ("api", "443", "api.example.com"), "{table}");
    // Without a namespace: it can be in one only.
    let table = server.run(&["get", "meshconfig"]).unwrap();
    let cells: Vec<&str> = table.split_whitespace().collect();
    assert_eq!(cells[6..11], ["pillion-system", "mesh", "allowAny", "strict", "240.240.0.0/16"], "{table}");

    let words = server.run(&["describe", "external", "api", "-n", "demo"]).unwrap();
    for line in ["Served by:   api.example.com, outside the mesh\n", "Shaped by:\n  TrafficPolicy demo/api\n"]
    {
        assert!(words.contains(line), "{line:?} in {words}");
    }
    let words = server.run(&["describe", "meshconfig", "mesh"]).unwrap();
    assert!(words.contains("  inbound: strict\n") && words.contains("1 given to services"), "{words}");
    let words = server.run(&["describe", "policy", "api", "-n", "demo"]).unwrap();
    assert!(words.contains("For:\n  ExternalService api\n"), "{words}");
    let (_, error) = server.run(&["delete", "external", "api", "-n", "demo"]).unwrap_err();
    assert!(error.contains("ExternalService demo/api is named by TrafficPolicy demo/api"), "{error}");
    let deleted = server.run_with(&["delete", "-f", "-"], OUTSIDE).unwrap();
    assert_eq!(
        deleted,
        "TrafficPolicy demo/api deleted\nExternalService demo/api deleted\nMeshConfig pillion-system/mesh deleted\n"
    );
}

#[test]
fn faults_name_file_line_and_field() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let services = folder.path().join("services.yaml");
    let canary = folder.path().join("canary.yaml");
    std::fs::write(&services, SERVICES).unwrap();
    std::fs::write(&canary, CANARY.replace("weight: 90", "weight: -1").replace("    kind: Service\n", ""))
        .unwrap();
    let (services, canary) = (services.to_str().unwrap(), canary.to_str().unwrap());
    let (code, error) = server.run(&["apply", "-f", services, "-f", canary]).unwrap_err();
    assert_eq!(code, 1);
    let field =
        "HTTPRoute demo/canary: spec.rules[0].backendRefs[0].weight: must be between 0 and 1000000, is -1";
    assert!(error.starts_with("error: 2 faults; nothing was changed\n"), "{error}");
    assert!(error.contains(&format!("{canary}:14:15: {field}\n")), "{error}");
    assert!(
        error.contains(&format!("{canary}:8:5: HTTPRoute demo/canary: spec.parentRefs[0].kind: must be")),
        "{error}"
    );
    assert!(server.run(&["get", "services", "-A"]).unwrap().contains("no services in any namespace"));

    std::fs::write(canary, "a: [1\nb: 2\n").unwrap();
    let (code, error) = server.run(&["apply", "-f", canary]).unwrap_err();
    assert_eq!(code, 1);
    assert!(error.contains(&format!("{canary}:")) && error.contains("is not YAML"), "{error}");
}

#[test]
fn what_has_no_effect_is_told_beside_the_result() {
    let server = Server::start();
    let policy = |name: &str| {
        format!(
            "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}, namespace: demo}}\nspec:\n  \
             targetRefs: [{{group: '', kind: Service, name: pay}}]\n"
        )
    };
    server.run_with(&["apply", "-f", "-"], &format!("{SERVICES}---\n{}", policy("a"))).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("b.yaml");
    std::fs::write(&file, policy("b")).unwrap();
    let file = file.to_str().unwrap();
    for arguments in [&["apply", "-f", file, "--dry-run"][..], &["apply", "-f", file]] {
        let output = pillion()
            .args(["--server", &server.url, "--token-file"])
            .arg(server.token_file())
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let (told, warned) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(told.starts_with("TrafficPolicy demo/b created"), "{told}");
        let expected = format!(
            "warning: {file}:5:16: TrafficPolicy demo/b: spec.targetRefs[0]: has no effect on Service demo/pay: TrafficPolicy \
             demo/a is for the same Service and "
        );
        assert!(warned.starts_with(&expected), "{warned}");
    }
}

#[test]
fn tokens_are_made_and_revoked() {
    let server = Server::start();
    let join = ["token", "create", "--namespace", "demo", "--service-account", "web", "--ttl", "10m"];
    let join = server.run(&join).unwrap();
    let parts: Vec<&str> = join.trim().split('.').collect();
    assert_eq!((parts[0], parts.len(), parts[3].len()), ("pillion-join", 4, 64));

    let viewer = server.run(&["token", "create", "--role", "viewer"]).unwrap();
    let refused = pillion()
        .args(["--server", &server.url, "--token", viewer.trim(), "apply", "-f", "-"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2), "no document is wrong usage: {refused:?}");
    let id = viewer.split('.').nth(1).unwrap();
    let as_viewer = |arguments: &[&str]| {
        outcome(
            &pillion()
                .args(["--server", &server.url, "--token", viewer.trim()])
                .args(arguments)
                .output()
                .unwrap(),
        )
    };
    let (code, error) = as_viewer(&["delete", "service", "x"]).unwrap_err();
    assert_eq!(code, 1);
    assert!(error.contains("this needs the role operator, the token has viewer"), "{error}");
    assert_eq!(server.run(&["token", "revoke", id]).unwrap(), format!("token {id} revoked\n"));
    let (_, error) = as_viewer(&["delete", "service", "x"]).unwrap_err();
    assert!(error.contains("the token was revoked at") && error.contains("--token-file"), "{error}");
    let list = server.run(&["token", "list"]).unwrap();
    assert!(
        list.contains("join as demo/web") && list.contains("revoked 20") && list.contains("API, admin"),
        "{list}"
    );
}

#[test]
fn an_empty_variable_is_as_unset() {
    let server = Server::start();
    let token = std::fs::read_to_string(server.token_file()).unwrap();
    for (set, empty) in [
        (("PILLION_TOKEN", token.trim()), "PILLION_TOKEN_FILE"),
        (("PILLION_TOKEN_FILE", server.token_file().to_str().unwrap()), "PILLION_TOKEN"),
    ] {
        let mut command = pillion();
        command
            .env("PILLION_SERVER", &server.url)
            .env("PILLION_CA_FILE", "")
            .env(set.0, set.1)
            .env(empty, "");
        // For which one needs a right.
        let output = command.args(["token", "list"]).stdin(Stdio::null()).output().unwrap();
        assert!(outcome(&output).is_ok(), "{empty}: {output:?}");
    }
    // A subcommand's, too.
    let mut command = pillion();
    command.env("PILLION_SERVER_CONFIG", "").args([
        "server",
        "--lease",
        "soon",
        "--data-dir",
        "/nonexistent",
    ]);
    let (code, error) = outcome(&command.stdin(Stdio::null()).output().unwrap()).unwrap_err();
    assert!(code == 78 && error.contains("lease:"), "{error}");
}

#[test]
fn what_is_in_force_is_described_before_a_mesh_config_is_written() {
    let server = Server::start();
    let words = server.run(&["describe", "meshconfig", "mesh"]).unwrap();
    for line in ["Written:     no: all defaults hold\n", "outbound: allowAny", "serviceCidr: "] {
        assert!(words.contains(line), "{words}");
    }
    let (code, error) = server.run(&["describe", "meshconfig", "other"]).unwrap_err();
    assert!(code != 0 && error.contains("There is no such thing"), "{error}");
}

#[test]
fn state_survives_kill_9() {
    let mut server = Server::start();
    server.run_with(&["apply", "-f", "-"], SERVICES).unwrap();
    let addresses = |server: &Server| {
        let list: Value =
            serde_json::from_str(&server.run(&["get", "services", "-A", "-o", "json"]).unwrap()).unwrap();
        [0, 1].map(|index| list["items"][index]["spec"]["clusterIP"].as_str().unwrap().to_owned())
    };
    let before = addresses(&server);
    let token = std::fs::read(server.token_file()).unwrap();
    server.kill_and_restart();
    assert_eq!(std::fs::read(server.token_file()).unwrap(), token);
    assert_eq!(
        server.run_with(&["apply", "-f", "-"], SERVICES).unwrap(),
        "Service demo/pay unchanged\nService demo/pay-v2 unchanged\n"
    );
    assert_eq!(addresses(&server), before);
    // A second server on the same data is told so.
    let second = Command::new(PILLION)
        .args(["server", "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--data-dir"])
        .arg(server.folder.path())
        .output()
        .unwrap();
    let error = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{error}");
    assert!(error.contains("pillion.redb is in use by another process"), "{error}");
}

#[test]
fn beyond_loopback_goes_over_tls_with_a_token_for_reading_too() {
    let folder = tempfile::tempdir().unwrap();
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("tls.pem"), folder.path().join("tls.key"));
    std::fs::write(&certificate, signed.cert.pem()).unwrap();
    std::fs::write(&key, signed.signing_key.serialize_pem()).unwrap();
    let data = folder.path().join("data");
    let mut command = Command::new(PILLION);
    command.args([
        "server",
        "--grpc-listen",
        "127.0.0.1:0",
        "--http-listen",
        "0.0.0.0:0",
        "--log-level",
        "warn",
    ]);
    command
        .arg("--data-dir")
        .arg(&data)
        .arg("--http-tls-cert")
        .arg(&certificate)
        .arg("--http-tls-key")
        .arg(&key);
    let child = command.stdout(Stdio::null()).spawn().unwrap();
    let url = Server::wait(&data);
    let port = url.rsplit(':').next().unwrap().to_owned();
    let _server = Server { child, url, folder };

    let url = format!("https://localhost:{port}");
    let get = |more: &[&str]| {
        let mut command = pillion();
        command.args(["--server", &url, "--ca-file"]).arg(&certificate).args(more).args(["get", "services"]);
        outcome(&command.output().unwrap())
    };
    let token_file = data.join("admin.token");
    assert!(get(&["--token-file", token_file.to_str().unwrap()]).unwrap().contains("no services"));
    let (code, error) = get(&[]).unwrap_err();
    assert!(code == 1 && error.contains("no token was sent"), "{error}");
    // What explains and shows the mesh is read with a viewer's token, and not without one.
    let with = |token: Option<&str>, arguments: &[&str]| {
        let mut command = pillion();
        command.args(["--server", &url, "--ca-file"]).arg(&certificate);
        command.args(token.map(|token| ["--token", token]).into_iter().flatten());
        outcome(&command.args(arguments).output().unwrap())
    };
    let admin = std::fs::read_to_string(&token_file).unwrap();
    let viewer = with(Some(admin.trim()), &["token", "create", "--role", "viewer"]).unwrap();
    for (arguments, expected) in [
        (&["stat"][..], Ok("no services")),
        (&["stat", "-o", "json"], Ok("\"rows\": []")),
        (&["stat", "-o", "wide"], Ok("no services")),
        (&["top", "--once"], Ok("no services")),
        (&["endpoints", "web.demo"], Err("neither a Service nor a workload web")),
        (&["explain", "--from", "web.demo", "--to", "pay.demo"], Err("neither a Service nor a workload web")),
    ] {
        let seen = with(Some(viewer.trim()), arguments);
        match expected {
            Ok(expected) => {
                assert!(seen.as_ref().is_ok_and(|text| text.contains(expected)), "{arguments:?}: {seen:?}")
            }
            Err(expected) => {
                let (code, error) = seen.unwrap_err();
                assert!(code == 1 && error.contains(expected), "{arguments:?}: {error}");
            }
        }
        let (code, error) = with(None, arguments).unwrap_err();
        assert!(code == 1 && error.contains("no token was sent"), "{arguments:?}: {error}");
        let (code, error) = with(Some("pillion-api.x.y"), arguments).unwrap_err();
        assert!(code == 1 && error.contains("token"), "{arguments:?}: {error}");
    }
    let untrusted = pillion().args(["--server", &url, "get", "services"]).output().unwrap();
    assert_eq!(untrusted.status.code(), Some(69), "{untrusted:?}");
}

#[test]
fn each_failure_has_its_exit_code() {
    let code = |arguments: &[&str]| {
        let output = pillion().args(arguments).stdin(Stdio::null()).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (unreachable, error) = code(&["--server", &format!("http://{free}"), "get", "services"]);
    assert_eq!(unreachable, 69);
    assert!(
        error.contains(&format!("cannot reach http://{free}/: ")) && error.contains("pillion server"),
        "{error}"
    );

    for arguments in [
        &["explain", "--from", "web.demo", "--to", "pay.demo"][..],
        &["stat"],
        &["stat", "pay.demo"],
        &["top", "--once"],
        &["endpoints", "pay.demo"],
    ] {
        let base = format!("http://{free}");
        let arguments = [&["--server", &base], arguments].concat();
        assert_eq!(code(&arguments).0, 69, "{arguments:?}");
    }
    for arguments in [
        &["explain", "--to", "pay.demo"][..],
        &["explain", "--from", "web.demo", "--to", "pay.demo", "-H", "no colon"],
        &["explain", "--from", "web.demo", "--to", "pay.demo", "--grpc", "a/b", "--path", "/"],
        &["stat", "edges", "pay.demo"],
        &["stat", "--window", "31m"],
        &["top", "--interval", "1ms"],
        &["endpoints"],
        &["endpoints", "pay.demo", "-n", "other"],
    ] {
        assert_eq!(code(arguments).0, 2, "{arguments:?}");
    }

    assert_eq!(code(&["get", "pods"]).0, 2);
    assert_eq!(code(&["apply"]).0, 2);
    assert_eq!(code(&["apply", "-f", "/nowhere.yaml"]).0, 2);
    assert_eq!(code(&["token", "create", "--namespace", "demo"]).0, 2);
    assert_eq!(code(&["--server", "ftp://x", "get", "services"]).0, 2);
    let clear = code(&["--server", "http://192.0.2.1", "--token", "x", "get", "services"]);
    assert!(clear.0 == 2 && clear.1.contains("not sent in clear text"), "{clear:?}");

    let (settings, error) =
        code(&["server", "--http-listen", "0.0.0.0:0", "--lease", "soon", "--data-dir", "/tmp/x"]);
    assert_eq!(settings, 78);
    assert!(
        error.contains("http-listen:") && error.contains("lease:") && error.contains("insists on TLS"),
        "{error}"
    );
    assert!(code(&["--version"]).0 == 0 && code(&["version"]).0 == 0);
}
