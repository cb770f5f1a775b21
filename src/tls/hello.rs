//! What a client says at the start of a TLS handshake (RFC 8446 4.1.2), read without taking part in it.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_rustls::rustls::server::Acceptor;

use super::Carries;
use crate::{
    error::{Reason, Refusal},
    net::sniff::Prefixed,
};

/// A `ClientHello` that is larger is not read on: with post-quantum key shares they have 2 KiB.
const MAX_HELLO: usize = 64 * 1024;

/// What a connection is for, as its client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The host it wants (RFC 6066 3).
    pub server_name: Option<String>,
    /// It offers protocols of ours: another sidecar.
    pub is_ours: bool,
}

/// Reads a connection's `ClientHello`, and gives it back to be read again. An error is why it is none of ours: it cannot be
/// understood, is too large, or did not come in time. To its receiver it may mean something all the same.
pub async fn read<T: AsyncRead + Unpin>(
    io: Prefixed<T>,
    within: Duration,
) -> (Result<Hello, Refusal>, Prefixed<T>) {
    let (prefix, mut io) = io.into_parts();
    let mut read = BytesMut::from(prefix);
    let reading = async {
        let (mut acceptor, mut fed) = (Acceptor::default(), 0);
        loop {
            while fed < read.len() {
                fed += acceptor.read_tls(&mut &read[fed..])?;
                match acceptor.accept() {
                    Ok(Some(accepted)) => {
                        let hello = accepted.client_hello();
                        let server_name = hello.server_name().map(str::to_owned);
                        let is_ours = (hello.alpn().into_iter().flatten())
                            .any(|protocol| Carries::from_alpn(Some(protocol)).is_some());
                        return Ok(Hello { server_name, is_ours });
                    }
                    Ok(None) => {}
                    Err((error, _)) => return Err(io::Error::other(error)),
                }
            }
            if read.len() >= MAX_HELLO {
                return Err(io::Error::other("the ClientHello is too large"));
            }
            if io.read_buf(&mut read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    };
    let hello = match tokio::time::timeout(within, reading).await {
        Ok(hello) => hello.map_err(|error| Refusal::new(Reason::TlsHandshake, error)),
        Err(_) => {
            let detail = format_args!("no whole ClientHello within {within:?}");
            Err(Refusal::new(Reason::TlsHandshake, detail))
        }
    };
    (hello, Prefixed::with(Bytes::from(read), io))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::aws_lc_rs};

    use super::*;

    fn client_hello(name: &'static str, protocols: &[&[u8]]) -> Vec<u8> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let name = name.try_into().expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("room");
        bytes
    }

    async fn read_of(bytes: &[u8]) -> Result<Hello, Refusal> {
        let (hello, mut io) = read(Prefixed::fresh(bytes), Duration::from_secs(1)).await;
        let mut again = Vec::new();
        io.read_to_end(&mut again).await.expect("readable");
        assert_eq!(again, bytes, "what was read is read again, be it understood or not");
        hello
    }

    #[tokio::test(start_paused = true)]
    async fn names_and_protocols() {
        let hello = read_of(&client_hello("api.example.com", &[b"h2", b"http/1.1"])).await.expect("a hello");
        assert_eq!(hello, Hello { server_name: Some("api.example.com".into()), is_ours: false });
        assert!(read_of(&client_hello("a.b.mesh", &[b"pillion/h2"])).await.expect("a hello").is_ours);
        let nameless = read_of(&client_hello("127.0.0.1", &[])).await.expect("a hello");
        assert_eq!(nameless, Hello { server_name: None, is_ours: false });
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_none_is_refused_and_silence_is_not_waited_for() {
        for wrong in [&b"\x16\x03\x01\x00\x05hello"[..], b"", b"\x16\x03\x01"] {
            assert_eq!(read_of(wrong).await.expect_err("no hello").reason, Reason::TlsHandshake);
        }
        let (_peer, io) = tokio::io::duplex(64);
        let (silent, _io) = read(Prefixed::fresh(io), Duration::from_secs(1)).await;
        assert_eq!(silent.expect_err("no hello").reason, Reason::TlsHandshake);
    }
}
