//! Databases and other protocols that are not HTTP, by their own clients: the client speaks first, or the server does, or
//! both have TLS of their own.

use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pillion::demo::children::Child;
use pillion::demo::network::Place;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::apps::App;
use crate::support::mesh::NAMESPACE;
use crate::support::netns::{WorkloadSpec, World, connect, in_world, listen_on};
use crate::support::{eventually, soon};

/// What the clients send; nobody between them and the servers may read it.
const SECRET: &str = "only-for-the-server";
/// `nobody`, on every Linux system: database servers refuse to run as root.
const NOBODY: u32 = 65534;

const REDIS: u16 = 6379;
const POSTGRES: u16 = 5432;
const MARIADB: u16 = 3306;
/// No well-known one: nothing says that its server speaks first.
const GREETER: u16 = 7025;

/// A service of the same name and port as the server, of which nothing is declared.
fn undeclared(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: {NAMESPACE} }}\nspec:\n  \
         selector: {{ app: {name} }}\n  ports: [{{ port: {port} }}]\n"
    )
}

#[test]
fn databases_and_servers_that_speak_first_work_by_mutual_tls() {
    in_world(async |world| {
        let names = [("redis", REDIS), ("postgres", POSTGRES), ("mariadb", MARIADB), ("greeter", GREETER)];
        let services = names.map(|(name, port)| undeclared(name, port)).join("---\n");
        world.mesh.apply(&services).await;
        let places = ["redis", "postgres", "mariadb", "greeter", "client"].map(|name| world.place(name));
        let [redis, postgres, mariadb, greeter, client] = places;
        let _redis_server = start_redis(world, &redis);
        let _mariadb_server = start_mariadb(world, &mariadb);
        let _postgres_server = start_postgres(world, &postgres).await;
        let _greeter_server = App::on(listen_on(&greeter, GREETER), greet);

        let serving = |name: &str, port| WorkloadSpec::serving(&format!("{name}-1"), name, &[port]);
        let redis = world.workload(redis, serving("redis", REDIS)).await;
        let postgres = world.workload(postgres, serving("postgres", POSTGRES)).await;
        let mariadb = world.workload(mariadb, serving("mariadb", MARIADB)).await;
        let greeter = world.workload(greeter, serving("greeter", GREETER)).await;
        let client = world.workload(client, WorkloadSpec::caller("client")).await;
        world.until_registered(&[&redis, &postgres, &mariadb, &greeter, &client]).await;
        for (name, _) in names {
            client.until_endpoints(name, 1).await;
        }
        let capture = world.capture(&client).await;

        use_redis(world, &client).await;
        for mode in ["disable", "require"] {
            use_postgres(world, &client, mode).await;
        }
        use_mariadb(world, &client).await;
        let to = (world.virtual_address("greeter").await, GREETER).into();
        let greeted = Instant::now();
        let mut stream = connect(&client, to).await.expect("the sidecar accepts for any service");
        let mut greeting = [0; 13];
        soon("a greeting", stream.read_exact(&mut greeting)).await.expect("the server speaks first");
        assert_eq!(&greeting, b"220 welcome\r\n");
        // Waiting for the client's first bytes would have taken seconds.
        assert!(greeted.elapsed() < Duration::from_secs(1), "the greeting took {:?}", greeted.elapsed());
        stream.write_all(format!("EHLO {SECRET}\r\n").as_bytes()).await.expect("the server reads");
        let mut rest = String::new();
        soon("an answer", stream.read_to_string(&mut rest)).await.expect("text");
        assert_eq!(rest, format!("250 EHLO {SECRET}\r\n"));
        drop(stream);

        world.assert_mutual_tls(&capture, &client, &redis, &[SECRET]).await;
        for (name, _) in names {
            let labels = [("direction", "outbound"), ("target", &format!("{name}.{NAMESPACE}"))];
            eventually(&format!("connections to {name} are counted as bytes"), async || {
                (client.count("pillion_opaque_connections_total", &labels).await >= 1.0).then_some(())
            })
            .await;
        }
    });
}

/// As an SMTP server does: a greeting unasked, then an answer to one line.
async fn greet(mut stream: tokio::net::TcpStream) {
    let _ = stream.write_all(b"220 welcome\r\n").await;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        match stream.read_u8().await {
            Ok(byte) => line.push(byte),
            Err(_) => return,
        }
    }
    let _ = stream.write_all(&[b"250 ", &line[..]].concat()).await;
}

fn start_redis(world: &World, place: &Place) -> Child {
    let port = REDIS.to_string();
    let arguments = ["--port", &port, "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""];
    world.start("redis", place, "redis-server", &arguments)
}

async fn use_redis(world: &World, client: &Place) {
    let redis = ["-h", "redis.demo.mesh", "-p", &REDIS.to_string()];
    let set = world.must(client, "redis-cli", &[&redis[..], &["SET", "key", SECRET]].concat()).await;
    assert_eq!(set, "OK\n");
    let got = world.must(client, "redis-cli", &[&redis[..], &["GET", "key"]].concat()).await;
    assert_eq!(got.trim_end(), SECRET);
}

/// A folder that `nobody` owns.
fn folder(world: &World, name: &str) -> PathBuf {
    let folder = world.mesh.file(name);
    std::fs::create_dir(&folder).expect("the test's folder is ours");
    chown(&folder, Some(NOBODY), Some(NOBODY)).expect("we are root");
    folder
}

/// MariaDB on an empty folder, without users: it needs none of its own tables then.
fn start_mariadb(world: &World, place: &Place) -> Child {
    let data = folder(world, "mariadb");
    let arguments = [
        "--no-defaults".into(),
        format!("--datadir={}", data.display()),
        format!("--socket={}", data.join("socket").display()),
        format!("--port={MARIADB}"),
        "--bind-address=0.0.0.0".into(),
        "--skip-grant-tables".into(),
        "--user=nobody".into(),
        "--innodb-buffer-pool-size=16M".into(),
        "--innodb-log-file-size=4M".into(),
    ];
    world.start("mariadb", place, "mariadbd", &arguments.each_ref().map(String::as_str))
}

async fn use_mariadb(world: &World, client: &Place) {
    let (port, statement) = (MARIADB.to_string(), format!("SELECT '{SECRET}'"));
    let arguments = [
        "--no-defaults",
        "--host=mariadb.demo.mesh",
        "--port",
        &port,
        "--user=root",
        "--skip-ssl",
        "--skip-column-names",
        "--execute",
        &statement,
    ];
    assert_eq!(world.must(client, "mariadb", &arguments).await.trim_end(), SECRET);
}

/// Where Debian has PostgreSQL's programs: not on the PATH.
fn postgres_program(name: &str) -> String {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let programs =
        versions.map(|version| version.path().join("bin").join(name)).filter(|program| program.exists());
    let program =
        programs.max().unwrap_or_else(|| panic!("PostgreSQL's {name} is missing; see `make setup-tests`"));
    program.display().to_string()
}

async fn start_postgres(world: &World, place: &Place) -> Child {
    let data = folder(world, "postgres").join("data");
    let as_nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let (initdb, path) = (postgres_program("initdb"), data.display().to_string());
    let how =
        ["--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8", "--locale=C", "-D", &path];
    world.must(place, "setpriv", &[&as_nobody[..], &[&initdb], &how].concat()).await;
    // A certificate for its own TLS; that it is one of a workload is nothing to it.
    let credential = world.mesh.credential("postgres");
    let who = "host all all all trust\n".to_owned();
    let (chain, key) = (credential.chain_pem(), credential.key().to_pem().to_string());
    for (name, text) in [("pg_hba.conf", who), ("server.crt", chain), ("server.key", key)] {
        let file = data.join(name);
        std::fs::write(&file, text).expect("root may");
        chown(&file, Some(NOBODY), Some(NOBODY)).expect("we are root");
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("we are root");
    }
    let (server, port) = (postgres_program("postgres"), format!("port={POSTGRES}"));
    let settings = ["listen_addresses=0.0.0.0", &port, "unix_socket_directories=", "ssl=on", "fsync=off"];
    let settings = settings.iter().flat_map(|setting| ["-c", setting]);
    let arguments: Vec<&str> = as_nobody.into_iter().chain([&*server, "-D", &path]).chain(settings).collect();
    world.start("postgres", place, "setpriv", &arguments)
}

async fn use_postgres(world: &World, client: &Place, mode: &str) {
    let to = format!(
        "host=postgres.demo.mesh port={POSTGRES} user=postgres dbname=postgres sslmode={mode} connect_timeout=10"
    );
    let statement = format!("SELECT '{SECRET}', ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    let shown = world
        .must(client, "psql", &["--no-psqlrc", "--tuples-only", "--no-align", "--command", &statement, &to])
        .await;
    let its_own_tls = if mode == "disable" { "f" } else { "t" };
    assert_eq!(shown.trim_end(), format!("{SECRET}|{its_own_tls}"), "with sslmode={mode}");
}
