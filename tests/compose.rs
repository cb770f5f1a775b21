//! `deploy/compose.yaml` in Docker: unchanged applications, injected, in containers that share network namespaces with their
//! sidecars. The images are those of `deploy/Dockerfile`, with the programs that were built for the tests.
//!
//! Runs where Docker is or can be started (`deploy/setup/docker`). Elsewhere it says so on standard error, and fails if
//! `PILLION_REQUIRE_DOCKER` is 1.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use pillion::demo::scrape::Samples;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::support::mesh::{pillion, pillion_proxy};
use crate::support::{alone, eventually};

/// `EX_UNAVAILABLE`: what `deploy/setup/docker` exits with where there is none.
const UNAVAILABLE: i32 = 69;
/// For building three images, and for starting and ending some twenty containers: each takes seconds.
const LONG: Duration = Duration::from_secs(120);
/// What the shop's programs need.
const APPLETS: [&str; 7] = ["sh", "wget", "httpd", "mkdir", "chmod", "sleep", "cat"];
/// Where every service answers.
const SHOP: &str = "http://web:8080/cgi-bin/shop";

#[tokio::test]
async fn a_shop_that_knows_nothing_of_the_mesh_is_in_it() {
    let _alone = alone().await;
    let Some(docker) = Docker::start().await else { return };
    let shop = Shop::up(&docker).await;

    // Each asks the next by the name that Compose gives it.
    let told = eventually("the shop answers", async || shop.get("customer", SHOP).await).await;
    for name in ["web", "cart", "payments"] {
        assert!(told.contains(&format!("{name} from ")), "{told}");
    }
    // Once all know each other, every hop is between identities that were proven.
    for (callee, caller) in [("web", "customer"), ("cart", "web"), ("payments", "cart")] {
        let source = format!("{caller}.default");
        eventually(&format!("{callee} is called by {caller}, who has proven it"), async || {
            shop.get("customer", SHOP).await?;
            let inbound = [("direction", "inbound"), ("source", &*source), ("status", "2xx")];
            (shop.metrics(callee).await?.sum("pillion_requests_total", &inbound) > 0.0).then_some(())
        })
        .await;
    }

    // From then on, nobody calls past the mesh.
    let others = shop.calls_from_outside().await;
    for _ in 0..10 {
        shop.get("customer", SHOP).await.expect("the shop answers");
    }
    assert_eq!(
        shop.calls_from_outside().await,
        others,
        "calls in plaintext of services that know each other"
    );

    // Somebody without a sidecar is served until that is forbidden.
    let stranger = "http://payments:8080/cgi-bin/shop";
    assert!(shop.get_as_stranger(stranger).await.is_some(), "plaintext is taken at first");
    assert!(shop.calls_from_outside().await > others, "and counted as what it is");
    shop.make_strict().await;
    eventually("plaintext is refused", async || shop.get_as_stranger(stranger).await.is_none().then_some(()))
        .await;
    let told = shop.get("customer", SHOP).await.expect("inside the mesh all goes on");
    assert!(told.contains("payments from "), "{told}");

    // Neither a sidecar nor an application loses the network when it is started anew.
    for service in ["payments-pillion", "payments"] {
        shop.compose(&["restart", service]).await;
        eventually(&format!("the shop answers after a restart of {service}"), async || {
            shop.get("customer", SHOP).await.filter(|told| told.contains("payments from ")).map(drop)
        })
        .await;
    }

    shop.down().await;
    assert_eq!(docker.left_of(&shop.project).await, "", "nothing of it is left");
    drop(shop);
    docker.stop().await;
}

/// A Docker, for as long as the test runs.
struct Docker {
    address: String,
    /// `deploy/setup/docker`, which ends with its standard input.
    holder: Child,
}

impl Docker {
    /// `None` where there can be none: that is told.
    #[expect(clippy::disallowed_methods, reason = "an order to the test, not a setting of the product")]
    async fn start() -> Option<Self> {
        let mut holder = Command::new(deploy("setup/docker"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the script starts");
        let mut lines = BufReader::new(holder.stdout.take().expect("it is piped")).lines();
        let line = tokio::time::timeout(LONG, lines.next_line()).await.expect("it answers").expect("text");
        if let Some(address) = line.as_deref().and_then(|line| line.strip_prefix("DOCKER_HOST=")) {
            return Some(Self { address: address.to_owned(), holder });
        }
        let status =
            tokio::time::timeout(LONG, holder.wait()).await.expect("it ends").expect("it is our child");
        let required = std::env::var("PILLION_REQUIRE_DOCKER").is_ok_and(|value| value == "1");
        assert_eq!(
            status.code(),
            Some(UNAVAILABLE),
            "Docker could be here, but something is broken: see above"
        );
        assert!(!required, "PILLION_REQUIRE_DOCKER is 1, and there is no Docker, for the reason above");
        // Not by a macro, which would not be shown of a test that passes. The script has said why.
        let _ =
            writeln!(std::io::stderr(), "NOT RUN: tests/compose.rs, the Compose demo, for the reason above");
        None
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("DOCKER_HOST", &self.address).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn docker(&self, arguments: &[&str]) -> Output {
        run(self.command("docker").args(arguments)).await
    }

    /// Containers, networks and volumes of a project, as text.
    async fn left_of(&self, project: &str) -> String {
        let label = format!("label=com.docker.compose.project={project}");
        let mut left = String::new();
        for list in [&["ps", "--all"][..], &["network", "ls"], &["volume", "ls"]] {
            left += &said(&self.docker(&[list, &["--quiet", "--filter", &label]].concat()).await);
        }
        left
    }

    async fn stop(mut self) {
        drop(self.holder.stdin.take());
        let status = tokio::time::timeout(LONG, self.holder.wait()).await.expect("it ends");
        assert!(status.expect("it is our child").success());
    }
}

/// The shop, running.
struct Shop<'docker> {
    docker: &'docker Docker,
    project: String,
    tag: String,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl<'docker> Shop<'docker> {
    async fn up(docker: &'docker Docker) -> Self {
        let folder = tempfile::Builder::new().prefix("pillion-test-").tempdir().expect("a folder");
        let project = format!("pillion-test-{}", std::process::id());
        let tag = project.clone();
        build_applications(docker, folder.path(), &tag).await;
        let programs = pillion_proxy();
        let programs = programs.parent().expect("a program is in a folder");
        let mut build = docker.command(deploy("images"));
        let sizes = said(&run(build.arg(programs).arg(&tag)).await);
        #[expect(clippy::print_stdout, reason = "the sizes are a result")]
        {
            println!("{sizes}");
        }
        assert_eq!(sizes.lines().count(), 3, "{sizes}");

        let file = folder.path().join("meshed.yaml");
        let mut inject = Command::new(pillion());
        inject.arg("inject").arg("-f").arg(deploy("compose.yaml")).arg("-o").arg(&file);
        inject.arg("--with-control-plane");
        for image in ["proxy", "redirect", "control-plane"] {
            inject.arg(format!("--{image}-image")).arg(format!("pillion/{image}:{tag}"));
        }
        run(&mut inject).await;
        let shop = Self { docker, project, tag, file, _folder: folder };
        shop.compose(&["up", "--detach"]).await;
        shop
    }

    fn compose_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.docker.command("docker-compose");
        command.env("APP_IMAGE", format!("pillion/shop:{}", self.tag)).env("WEB_PORT", "0");
        command.args(["--project-name", &self.project, "--file"]).arg(&self.file).args(arguments);
        command
    }

    async fn compose(&self, arguments: &[&str]) -> Output {
        run(&mut self.compose_command(arguments)).await
    }

    /// What an application gets, which calls as it would without a mesh.
    async fn get(&self, service: &str, url: &str) -> Option<String> {
        let arguments = ["exec", "-T", service, "wget", "-q", "-O", "-", url];
        let output = finish(&mut self.compose_command(&arguments)).await;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What somebody gets who is on the same network, without a sidecar.
    async fn get_as_stranger(&self, url: &str) -> Option<String> {
        let network = format!("{}_default", self.project);
        let image = format!("pillion/shop:{}", self.tag);
        let mut command = self.docker.command("docker");
        command.args(["run", "--rm", "--network", &network, &image, "wget", "-q", "-O", "-", url]);
        let output = finish(&mut command).await;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What a service's sidecar has counted. The application is in the same network namespace.
    async fn metrics(&self, service: &str) -> Option<Samples> {
        let text = self.get(service, "http://127.0.0.1:15020/metrics").await?;
        Some(Samples::parse(&text).expect("well-formed metrics"))
    }

    /// By each service that is called: how many requests came without an identity.
    async fn calls_from_outside(&self) -> [f64; 3] {
        let mut calls = [0.0; 3];
        for (service, calls) in ["web", "cart", "payments"].into_iter().zip(&mut calls) {
            let metrics = self.metrics(service).await.expect("the sidecar answers");
            *calls =
                metrics.sum("pillion_requests_total", &[("direction", "inbound"), ("source", "outside")]);
        }
        calls
    }

    async fn make_strict(&self) {
        let document = "apiVersion: pillion.dev/v1alpha1\nkind: MeshConfig\n\
                        metadata: {name: mesh, namespace: pillion-system}\nspec: {inbound: strict}\n";
        let file = self.file.with_file_name("strict.yaml");
        std::fs::write(&file, document).expect("the folder is ours");
        let mut command = self.compose_command(&["exec", "-T", "pillion", "/pillion", "apply", "-f", "-"]);
        command.args(["--token-file", "/data/admin.token"]);
        run(command.stdin(std::fs::File::open(&file).expect("just written"))).await;
    }

    async fn down(&self) {
        self.compose(&["down", "--volumes", "--timeout", "20"]).await;
    }
}

impl Drop for Shop<'_> {
    /// Also when the test fails: the Docker may be somebody's own.
    #[expect(clippy::print_stdout, reason = "it is for whoever reads why a test failed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.compose_command(&["logs", "--no-color", "--tail", "20"]).into_std().output();
            if let Ok(logs) = logs {
                println!("{}", String::from_utf8_lossy(&logs.stdout));
            }
            let down = ["down", "--volumes", "--timeout", "0"];
            let _ = self.compose_command(&down).into_std().output();
        }
        let images =
            ["shop", "proxy", "redirect", "control-plane"].map(|name| format!("pillion/{name}:{}", self.tag));
        let mut remove = self.docker.command("docker");
        remove.args(["image", "rm", "--force"]).args(images);
        let _ = remove.into_std().output();
    }
}

/// The image of the shop's programs: busybox, as Debian has it, and nothing else.
async fn build_applications(docker: &Docker, folder: &Path, tag: &str) {
    let context = folder.join("shop");
    let programs = context.join("bin");
    std::fs::create_dir_all(&programs).expect("the folder is ours");
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.exists());
    let busybox = busybox.expect("busybox is missing: run `make setup-tests`");
    std::fs::create_dir(context.join("root")).expect("the folder is ours");
    // A static one has none, which is an error to ldd.
    let libraries = said(&finish(Command::new("ldd").arg(busybox).stdin(Stdio::null())).await);
    for file in libraries.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new) {
        let inside = context.join("root").join(file.strip_prefix("/").expect("it begins so"));
        std::fs::create_dir_all(inside.parent().expect("a file is in a folder")).expect("the folder is ours");
        std::fs::copy(file, inside).expect("a library can be read");
    }
    std::fs::copy(busybox, programs.join("busybox")).expect("it can be copied");
    for applet in APPLETS {
        symlink("busybox", programs.join(applet)).expect("the folder is ours");
    }
    let dockerfile = "FROM scratch\nCOPY root/ /\nCOPY bin/ /bin/\nENV PATH=/bin\n";
    std::fs::write(context.join("Dockerfile"), dockerfile).expect("the folder is ours");
    let image = format!("pillion/shop:{tag}");
    let mut build = docker.command("docker");
    build.env("DOCKER_BUILDKIT", "0").args(["build", "--quiet", "--tag", &image]).arg(&context);
    run(&mut build).await;
}

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)
}

async fn finish(command: &mut Command) -> Output {
    let running = tokio::time::timeout(LONG, command.output());
    running.await.unwrap_or_else(|_| panic!("{command:?} hangs")).expect("it starts")
}

async fn run(command: &mut Command) -> Output {
    let output = finish(command).await;
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
