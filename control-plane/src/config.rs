//! The server's settings: texts from flags, environment and a file, checked together into [`ServerConfig`].
//!
//! A setting has one name: `--lease`, `PILLION_SERVER_LEASE` and `lease:` in the YAML file are the same. Flags go before
//! environment, environment before the file, the file before the default.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::PathBuf, time::Duration};

use pillion_certs::spiffe::TrustDomain;

use crate::error::{Error, SettingFault};

/// What the server was told on its command line and in its environment, as written.
#[derive(clap::Args, Debug, Clone, Default)]
pub struct ServerArgs {
    /// A YAML file with any of these settings
    #[arg(long, env = "PILLION_SERVER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the server keeps everything it knows [default: the user's data directory]
    #[arg(long, env = "PILLION_SERVER_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Where sidecars connect [default: 127.0.0.1:15010]
    #[arg(long, env = "PILLION_SERVER_GRPC_LISTEN", value_name = "IP:PORT")]
    pub grpc_listen: Option<String>,
    /// Where the API and the dashboard are served [default: 127.0.0.1:15080]
    #[arg(long, env = "PILLION_SERVER_HTTP_LISTEN", value_name = "IP:PORT")]
    pub http_listen: Option<String>,
    /// Certificate chain for the API, PEM; required beyond loopback
    #[arg(long, env = "PILLION_SERVER_HTTP_TLS_CERT", value_name = "FILE")]
    pub http_tls_cert: Option<String>,
    /// Private key for the API, PEM; required beyond loopback
    #[arg(long, env = "PILLION_SERVER_HTTP_TLS_KEY", value_name = "FILE")]
    pub http_tls_key: Option<String>,
    /// The trust domain of every identity [default: mesh.local]
    #[arg(long, env = "PILLION_SERVER_TRUST_DOMAIN", value_name = "NAME")]
    pub trust_domain: Option<String>,
    /// An existing root or intermediate certificate, PEM; one is made at first start otherwise
    #[arg(long, env = "PILLION_SERVER_CA_CERT", value_name = "FILE")]
    pub ca_cert: Option<String>,
    /// The private key of --ca-cert, PEM
    #[arg(long, env = "PILLION_SERVER_CA_KEY", value_name = "FILE")]
    pub ca_key: Option<String>,
    /// How long a workload's certificate is valid [default: 24h]
    #[arg(long, env = "PILLION_SERVER_LEAF_TTL", value_name = "DURATION")]
    pub leaf_ttl: Option<String>,
    /// How long a workload stays registered after its stream is lost [default: 10s]
    #[arg(long, env = "PILLION_SERVER_LEASE", value_name = "DURATION")]
    pub lease: Option<String>,
    /// How often sidecars are sent a heartbeat [default: 5s]
    #[arg(long, env = "PILLION_SERVER_HEARTBEAT", value_name = "DURATION")]
    pub heartbeat: Option<String>,
    /// What is logged: a level, or directives such as `info,pillion::serve=debug` [default: info]
    #[arg(long, env = "PILLION_SERVER_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// Complete, typed and consistent settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Holds the store, the trust anchors and `server.json`.
    pub data_dir: PathBuf,
    /// For sidecars; port 0 takes a free one.
    pub grpc_listen: SocketAddr,
    /// For people and tools; port 0 takes a free one.
    pub http_listen: SocketAddr,
    /// Certificate chain and key files of the API; `None` only on loopback.
    pub http_tls: Option<FilePair>,
    /// Of every identity issued.
    pub trust_domain: TrustDomain,
    /// An existing authority; `None`: made at first start and kept in the store.
    pub authority: Option<FilePair>,
    /// Validity of workloads' certificates.
    pub leaf_ttl: Duration,
    /// How long a lost workload stays registered.
    pub lease: Duration,
    /// Between heartbeats on each sidecar's stream.
    pub heartbeat: Duration,
    /// Directives for the log filter.
    pub log_level: String,
}

/// A PEM certificate file with its key's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePair {
    /// Leaf first.
    pub certificate: PathBuf,
    /// PKCS #8.
    pub key: PathBuf,
}

/// All settings but the file's own name, in the order of the help text.
const SETTINGS: [&str; 12] = [
    "data-dir",
    "grpc-listen",
    "http-listen",
    "http-tls-cert",
    "http-tls-key",
    "trust-domain",
    "ca-cert",
    "ca-key",
    "leaf-ttl",
    "lease",
    "heartbeat",
    "log-level",
];

impl ServerArgs {
    /// Reads the file, if one is named, and checks everything together.
    ///
    /// `default_data_dir` serves where no data directory is set.
    ///
    /// # Errors
    /// [`Error::Settings`] with every fault; [`Error::Failed`] when the file cannot be read.
    pub fn check(self, default_data_dir: Option<PathBuf>) -> Result<ServerConfig, Error> {
        let mut faults = Vec::new();
        let mut texts = BTreeMap::new();
        if let Some(path) = &self.config {
            let text = fs::read_to_string(path)
                .map_err(|cause| Error::failed(format!("read {}", path.display()), cause))?;
            texts = parse_file(&text, &mut faults);
        }
        let told = [
            self.data_dir,
            self.grpc_listen,
            self.http_listen,
            self.http_tls_cert,
            self.http_tls_key,
            self.trust_domain,
            self.ca_cert,
            self.ca_key,
            self.leaf_ttl,
            self.lease,
            self.heartbeat,
            self.log_level,
        ];
        for (setting, value) in SETTINGS.into_iter().zip(told) {
            if let Some(value) = value {
                texts.insert(setting.to_owned(), value);
            }
        }
        check(Texts { texts, faults }, default_data_dir)
    }
}

/// The texts of a YAML file by setting; what is not a setting or not a plain value is a fault.
fn parse_file(text: &str, faults: &mut Vec<SettingFault>) -> BTreeMap<String, String> {
    let mut fault = |setting: &str, message: String| {
        faults.push(SettingFault { setting: setting.to_owned(), message });
    };
    let values: BTreeMap<String, serde_json::Value> = match serde_saphyr::from_str(text) {
        Ok(values) => values,
        Err(error) => {
            fault("config", format!("is not a YAML mapping of settings: {error}"));
            return BTreeMap::new();
        }
    };
    let mut texts = BTreeMap::new();
    for (setting, value) in values {
        if !SETTINGS.contains(&setting.as_str()) {
            fault(&setting, format!("is not a setting; there are {}", SETTINGS.join(", ")));
            continue;
        }
        match value {
            serde_json::Value::String(text) => drop(texts.insert(setting, text)),
            serde_json::Value::Number(number) => drop(texts.insert(setting, number.to_string())),
            serde_json::Value::Null => {}
            _ => fault(&setting, "must be a plain value".to_owned()),
        }
    }
    texts
}

struct Texts {
    texts: BTreeMap<String, String>,
    faults: Vec<SettingFault>,
}

impl Texts {
    fn fault(&mut self, setting: &str, message: impl Into<String>) {
        self.faults.push(SettingFault { setting: setting.to_owned(), message: message.into() });
    }

    /// The setting parsed, or the default; a fault also gives the default, so that checking goes on.
    fn parse<T>(&mut self, setting: &str, default: T, parse: impl Fn(&str) -> Result<T, String>) -> T {
        let Some(text) = self.texts.get(setting) else { return default };
        match parse(text) {
            Ok(value) => value,
            Err(message) => {
                let message = format!("{message}, is {text:?}");
                self.fault(setting, message);
                default
            }
        }
    }

    fn address(&mut self, setting: &str, default: SocketAddr) -> SocketAddr {
        self.parse(setting, default, |text| {
            text.parse().map_err(|_| "must be an IP address and a port, such as 127.0.0.1:15080".to_owned())
        })
    }

    fn duration(&mut self, setting: &str, default: Duration, least: Duration, most: Duration) -> Duration {
        self.parse(setting, default, |text| {
            let expected = || {
                let (least, most) = (humantime::format_duration(least), humantime::format_duration(most));
                format!("must be a duration with its unit, from {least} to {most}")
            };
            let value = humantime::parse_duration(text).map_err(|_| expected())?;
            if (least..=most).contains(&value) { Ok(value) } else { Err(expected()) }
        })
    }

    fn pair(&mut self, certificate: &str, key: &str) -> Option<FilePair> {
        match (self.texts.get(certificate), self.texts.get(key)) {
            (Some(certificate), Some(key)) => {
                Some(FilePair { certificate: certificate.into(), key: key.into() })
            }
            (None, None) => None,
            (Some(_), None) => {
                self.fault(key, format!("is missing; {certificate} is set and both go together"));
                None
            }
            (None, Some(_)) => {
                self.fault(certificate, format!("is missing; {key} is set and both go together"));
                None
            }
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn check(mut texts: Texts, default_data_dir: Option<PathBuf>) -> Result<ServerConfig, Error> {
    let data_dir = texts.texts.get("data-dir").map(PathBuf::from).or(default_data_dir);
    if data_dir.as_ref().is_none_or(|path| path.as_os_str().is_empty()) {
        texts.fault("data-dir", "is missing, and there is no home directory to default to");
    }
    let grpc_listen = texts.address("grpc-listen", SocketAddr::from(([127, 0, 0, 1], 15010)));
    let http_listen = texts.address("http-listen", SocketAddr::from(([127, 0, 0, 1], 15080)));
    let http_tls = texts.pair("http-tls-cert", "http-tls-key");
    let http_tls_told = texts.texts.contains_key("http-tls-cert") || texts.texts.contains_key("http-tls-key");
    if !http_listen.ip().is_loopback() && !http_tls_told {
        texts.fault(
            "http-listen",
            format!("{http_listen} is beyond loopback, where the server insists on TLS: set http-tls-cert and http-tls-key"),
        );
    }
    let trust_domain = texts.parse("trust-domain", default_trust_domain(), |text| {
        text.parse().map_err(|fault| format!("must be a SPIFFE trust domain ({fault})"))
    });
    let authority = texts.pair("ca-cert", "ca-key");
    let leaf_ttl = texts.duration("leaf-ttl", DAY, 30 * SECOND, 90 * DAY);
    let lease = texts.duration("lease", 10 * SECOND, SECOND, DAY);
    let heartbeat = texts.duration("heartbeat", 5 * SECOND, SECOND / 10, 60 * SECOND);
    let log_level = texts.texts.get("log-level").cloned().unwrap_or_else(|| "info".to_owned());
    if let Err(error) = log_level.parse::<tracing_subscriber::filter::Targets>() {
        texts.fault("log-level", format!("must be a level or log directives ({error}), is {log_level:?}"));
    }
    match data_dir {
        Some(data_dir) if texts.faults.is_empty() => Ok(ServerConfig {
            data_dir,
            grpc_listen,
            http_listen,
            http_tls,
            trust_domain,
            authority,
            leaf_ttl,
            lease,
            heartbeat,
            log_level,
        }),
        _ => Err(Error::Settings(texts.faults)),
    }
}

fn default_trust_domain() -> TrustDomain {
    "mesh.local".parse().expect("the default trust domain is valid")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn faults(args: ServerArgs) -> Vec<String> {
        match args.check(Some("/var/lib/pillion".into())) {
            Err(Error::Settings(faults)) => faults.iter().map(|fault| fault.setting.clone()).collect(),
            other => panic!("expected faults, not {other:?}"),
        }
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(text.as_bytes()).expect("written");
        file
    }

    #[test]
    fn defaults_are_complete() {
        let config = ServerArgs::default().check(Some("/var/lib/pillion".into())).expect("no faults");
        assert_eq!(config.grpc_listen.port(), 15010);
        assert_eq!(config.trust_domain.to_string(), "mesh.local");
        assert_eq!(config.leaf_ttl, DAY);
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let file = file("lease: soon\nno-such: 1\nleaf-ttl: [1]\n");
        let args = ServerArgs {
            config: Some(file.path().into()),
            grpc_listen: Some("localhost".into()),
            http_listen: Some("0.0.0.0:15080".into()),
            trust_domain: Some("Not A Domain".into()),
            ca_cert: Some("ca.pem".into()),
            log_level: Some("pillion=loud".into()),
            ..ServerArgs::default()
        };
        let expected = [
            "leaf-ttl",
            "no-such",
            "grpc-listen",
            "http-listen",
            "trust-domain",
            "ca-key",
            "lease",
            "log-level",
        ];
        assert_eq!(faults(args), expected);
    }

    #[test]
    fn flags_go_before_the_file() {
        let file = file("lease: 20s\nheartbeat: 2s\n");
        let args = ServerArgs {
            config: Some(file.path().into()),
            lease: Some("30s".into()),
            ..ServerArgs::default()
        };
        let config = args.check(Some("/d".into())).expect("no faults");
        assert_eq!((config.lease, config.heartbeat), (30 * SECOND, 2 * SECOND));
    }

    #[test]
    fn a_durations_range_is_named() {
        let args = ServerArgs { lease: Some("10".into()), ..ServerArgs::default() };
        let Err(Error::Settings(faults)) = args.check(Some("/d".into())) else { panic!("expected a fault") };
        assert_eq!(faults[0].message, "must be a duration with its unit, from 1s to 1day, is \"10\"");
    }
}
