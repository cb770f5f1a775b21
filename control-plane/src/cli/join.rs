//! `pillion join`: what a control plane within a Compose file runs once, for its neighbours.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use reqwest::Method;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Client, Connection, Failure, apply, print};
use crate::{
    resource::text::{self, Format},
    token::Created,
};

/// Between tries to reach a server that is starting.
const AGAIN: Duration = Duration::from_millis(100);
/// Many times what a server takes to start.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// Wait for a server, apply documents, and write a join token for each of some workloads into a folder.
#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    /// NAMESPACE/SERVICE_ACCOUNT of each workload; its token is written to the file SERVICE_ACCOUNT/token in the folder
    #[arg(required = true, value_name = "IDENTITY", value_parser = identity)]
    identities: Vec<(String, String)>,
    /// Where the tokens go
    #[arg(long, value_name = "DIR")]
    tokens_dir: PathBuf,
    /// The user, by number, who alone is to read them [default: who runs this]
    #[arg(long, value_name = "UID")]
    owner: Option<u32>,
    /// How long they work
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    ttl: String,
    /// Documents to apply first, as YAML
    #[arg(
        long,
        env = "PILLION_JOIN_DOCUMENTS",
        value_name = "YAML",
        default_value = "",
        hide_env_values = true
    )]
    documents: String,
}

pub(super) async fn run(args: &JoinArgs, connection: &Connection) -> Result<(), Failure> {
    // The server writes the admin token as it starts for the first time, so it is read anew at each try.
    let deadline = Instant::now() + STARTS_WITHIN;
    let client = loop {
        let tried = match Client::new(connection, None) {
            Ok(client) => client.change(Method::GET, &tokens(), &[], None).await.map(|_| client),
            Err(failure) => Err(failure),
        };
        match tried {
            Ok(client) => break client,
            Err(failure) if Instant::now() >= deadline => return Err(failure),
            Err(_) => sleep(AGAIN).await,
        }
    };
    let documents = text::read(&args.documents, Format::Yaml)
        .map_err(|fault| Failure::Faults(vec![format!("documents: {fault}")]))?;
    if !documents.is_empty() {
        let items: Vec<_> = documents.into_iter().map(|written| written.value).collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        let path = ["v1".to_owned(), "apply".to_owned()];
        apply::tell(client.change(Method::POST, &path, &[], Some(&list)).await?, false, apply::unplaced)?;
    }
    for (namespace, account) in &args.identities {
        let body = json!({
            "kind": "join", "namespace": namespace, "serviceAccount": account, "ttl": args.ttl,
        });
        let answer = client.change(Method::POST, &tokens(), &[], Some(&body)).await?;
        let created: Created = serde_json::from_value(answer)
            .map_err(|error| Failure::Local(format!("the server's answer is not understood: {error}")))?;
        let file = args.tokens_dir.join(account).join("token");
        write(&file, &created.token, args.owner)
            .map_err(|error| Failure::Local(format!("cannot write {}: {error}", file.display())))?;
        print(&format!("token for {namespace}/{account} in {}\n", file.display()))?;
    }
    Ok(())
}

fn tokens() -> [String; 2] {
    ["v1".to_owned(), "tokens".to_owned()]
}

/// Whole or not at all, and for its owner only.
fn write(file: &Path, token: &str, owner: Option<u32>) -> std::io::Result<()> {
    use std::io::Write as _;
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut whole = tempfile::NamedTempFile::new_in(folder)?;
    whole.write_all(token.as_bytes())?;
    if owner.is_some() {
        std::os::unix::fs::fchown(whole.as_file(), owner, None)?;
    }
    whole.persist(file)?;
    Ok(())
}

fn identity(text: &str) -> Result<(String, String), String> {
    let (namespace, account) = text.split_once('/').ok_or("is not NAMESPACE/SERVICE_ACCOUNT")?;
    for part in [namespace, account] {
        crate::resource::dns_label(part)?;
    }
    Ok((namespace.to_owned(), account.to_owned()))
}
