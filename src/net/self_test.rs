//! How a sidecar finds out whether traffic is redirected to it: it connects to an address where nobody listens, which the
//! rules lead back to itself, and knows itself by a secret that only this process can answer with.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use rand::RngCore;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Where it connects. On loopback: a connection that is not redirected is refused at once, needs no route, and nothing of it
/// leaves the host. The port is kept free for this.
pub const ADDRESSES: [SocketAddr; 2] = [
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), PORT),
    SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), PORT),
];
const PORT: u16 = 15002;

/// The same, which the rules lead here for everybody but the sidecar's own user. Were it led here for us, each connection of
/// ours would come back to us, and be carried on by another one, without end.
pub const EXEMPT: [SocketAddr; 2] = [
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), EXEMPT_PORT),
    SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), EXEMPT_PORT),
];
const EXEMPT_PORT: u16 = 15003;

/// For either side of one test.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What this process is known by, to itself.
#[derive(Clone, Copy)]
pub struct SelfTest {
    secret: [u8; 16],
}

/// What a test has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It came back to this process.
    Redirected,
    /// It went elsewhere: where, in words.
    Bypassed(String),
    /// Our own connections come back to us.
    Looped,
    /// Nothing, as when this process is too busy to answer in time.
    Nothing,
}

impl SelfTest {
    /// With a secret of its own.
    pub fn new(random: &mut impl RngCore) -> Self {
        let mut secret = [0; 16];
        random.fill_bytes(&mut secret);
        Self { secret }
    }

    /// Whether a connection with this original destination is a test.
    pub fn is_meant(original: SocketAddr) -> bool {
        ADDRESSES.contains(&original) || EXEMPT.contains(&original)
    }

    /// Answers a test: to be called with connections that are [meant](Self::is_meant), by whoever accepts redirected ones.
    pub async fn answer(self, mut stream: TcpStream) {
        let answered = async {
            stream.write_all(&self.secret).await?;
            stream.shutdown().await
        };
        if let Ok(Err(error)) = timeout(TIMEOUT, answered).await {
            tracing::debug!(%error, "a test of the redirection");
        }
    }

    /// Tests one of [`ADDRESSES`], or one of [`EXEMPT`].
    pub async fn test(self, address: SocketAddr) -> Found {
        let found = self.lead(address).await;
        match (EXEMPT.contains(&address), found) {
            (false, found) => found,
            (true, Found::Redirected) => Found::Looped,
            (true, _) => Found::Redirected,
        }
    }

    /// Where an address leads.
    async fn lead(self, address: SocketAddr) -> Found {
        let met = async {
            let mut stream = TcpStream::connect(address).await?;
            let mut secret = [0; 16];
            stream.read_exact(&mut secret).await?;
            Ok::<_, io::Error>(secret)
        };
        match timeout(TIMEOUT, met).await {
            Ok(Ok(secret)) if secret == self.secret => Found::Redirected,
            Ok(Ok(_)) => Found::Bypassed(format!("{address} leads to another process")),
            Ok(Err(error)) => Found::Bypassed(format!("{address}: {error}")),
            Err(_) => Found::Nothing,
        }
    }
}

impl std::fmt::Debug for SelfTest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SelfTest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::SmallRng};

    fn one(seed: u64) -> SelfTest {
        SelfTest::new(&mut SmallRng::seed_from_u64(seed))
    }

    async fn met_by(answerer: Option<SelfTest>) -> Found {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let accepting = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("somebody connects");
            match answerer {
                Some(answerer) => answerer.answer(stream).await,
                None => std::future::pending::<()>().await,
            }
        });
        let found = one(1).test(address).await;
        accepting.abort();
        found
    }

    #[tokio::test]
    async fn a_process_knows_itself() {
        assert_eq!(met_by(Some(one(1))).await, Found::Redirected);
        let Found::Bypassed(reason) = met_by(Some(one(2))).await else { panic!("taken for itself") };
        assert!(reason.contains("another process"), "{reason}");
    }

    #[tokio::test]
    async fn nobody_there_is_a_bypass() {
        let unused = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            listener.local_addr().expect("it is bound")
        };
        let Found::Bypassed(reason) = one(1).test(unused).await else { panic!("nobody is there") };
        assert!(reason.contains("refused"), "{reason}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_answer_in_time_says_nothing() {
        assert_eq!(met_by(None).await, Found::Nothing);
    }
}
