//! The first word on a `pillion/tcp` connection: whether the application behind it has taken the connection.
//!
//! One byte from the answering side: 0, go ahead; else the length of the refusal's reason, which follows. Without it a
//! dead application would look to the caller like one that hung up.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::error::{Reason, Refusal};

/// Tells the caller to go ahead.
pub async fn go_ahead<T: AsyncWrite + Unpin>(io: &mut T) -> io::Result<()> {
    io.write_all(&[0]).await?;
    io.flush().await
}

/// Tells the caller why not, and ends the connection.
pub async fn refuse<T: AsyncWrite + Unpin>(io: &mut T, reason: Reason) -> io::Result<()> {
    let name = reason.as_str();
    let length = u8::try_from(name.len()).expect("names of reasons are short");
    io.write_all(&[&[length], name.as_bytes()].concat()).await?;
    io.shutdown().await
}

/// Waits for the word.
///
/// # Errors
/// The callee's own reason; [`Reason::NotProcessed`] when the connection ended before it; [`Reason::PeerProtocol`]
/// for a reason that is not known here.
pub async fn read<T: AsyncRead + Unpin>(io: &mut T) -> Result<(), Refusal> {
    let lost = |error: io::Error| Refusal::new(Reason::NotProcessed, error);
    let length = io.read_u8().await.map_err(lost)?;
    if length == 0 {
        return Ok(());
    }
    let mut name = vec![0; length.into()];
    io.read_exact(&mut name).await.map_err(lost)?;
    let known = std::str::from_utf8(&name).ok().and_then(Reason::from_name);
    Err(known.map_or_else(
        || Refusal::new(Reason::PeerProtocol, format_args!("{:?}", String::from_utf8_lossy(&name))),
        |reason| Refusal::new(reason, "said by the callee's sidecar"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn words_arrive() {
        let (mut caller, mut callee) = tokio::io::duplex(256);
        go_ahead(&mut callee).await.expect("room");
        read(&mut caller).await.expect("go ahead");
        for reason in Reason::ALL {
            let (mut caller, mut callee) = tokio::io::duplex(256);
            refuse(&mut callee, *reason).await.expect("room");
            assert_eq!(read(&mut caller).await.expect_err("a refusal").reason, *reason);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_nonsense() {
        let (mut caller, callee) = tokio::io::duplex(256);
        drop(callee);
        assert_eq!(read(&mut caller).await.expect_err("nothing").reason, Reason::NotProcessed);
        let (mut caller, mut callee) = tokio::io::duplex(256);
        callee.write_all(b"\x03abc").await.expect("room");
        assert_eq!(read(&mut caller).await.expect_err("nonsense").reason, Reason::PeerProtocol);
    }
}
